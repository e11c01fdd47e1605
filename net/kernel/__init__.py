"""The kernel behind the network: netlink, nft, namespaces, sysctls, and a fake of them."""

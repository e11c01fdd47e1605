"""WireGuard devices of a host: the kernel's own, or wireguard-go where the kernel has none."""

# Shared by deploy/demo, deploy/test and deploy/bench: what a fresh Debian 12 machine needs to run flota.
# Sourced, never run. Idempotent: a second call installs nothing and takes well under a second.

export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
unset FLOTA_HOST FLOTA_CREDENTIALS # of a fleet that somebody tried by hand, the demo's before, say
FLOTA_HOME=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
FLOTA_VENV=$FLOTA_HOME/.venv
FLOTA_PACKAGES="runc conmon nftables libnftables1 iproute2 golang-github-containers-common tini wireguard-go"
FLOTA_DEMO_PACKAGES="busybox-static"
FLOTA_TEST_PACKAGES="busybox-static curl ethtool docker-registry haproxy skopeo umoci podman buildah docker.io oci-image-tool golang-github-opencontainers-image-spec-dev golang-github-opencontainers-specs-dev golang-github-openshift-imagebuilder-dev golang-github-moby-patternmatcher-dev iperf3 strace procps ufw firewalld dbus-daemon openssh-server openssh-client git sudo systemd btrfs-progs"
FLOTA_FULL_TEST_PACKAGES="iptables mmdebstrap debootstrap"
FLOTA_CONFORMANCE_PACKAGES="golang-github-docker-docker-dev golang-go socat docker.io docker-registry skopeo prometheus curl"
FLOTA_VM_PACKAGES="mmdebstrap qemu-system-x86 qemu-utils e2fsprogs openssh-client iproute2 busybox-static vagrant vagrant-libvirt"
FLOTA_BOX_PACKAGES="syslinux syslinux-common mtools dosfstools fdisk"
FLOTA_VAGRANT_PACKAGES="libvirt-daemon-system libvirt-clients dnsmasq-base $FLOTA_BOX_PACKAGES"
FLOTA_BENCH_PACKAGES="buildah podman docker-registry skopeo busybox-static docker.io haproxy iperf3 iptables procps containernetworking-plugins dnsmasq-base btrfs-progs"

die() { echo "error: $*" >&2; exit 1; }

need_root() { [ "$(id -u)" = 0 ] || die "this needs root: sudo $0 $*"; }

# apt_install PACKAGE…: only what is missing; one apt call.
apt_install() {
  local missing=() package
  for package in "$@"; do
    dpkg-query -W -f='${Status}' "$package" 2>/dev/null | grep -q 'ok installed' || missing+=("$package")
  done
  [ ${#missing[@]} = 0 ] && return 0
  echo "installing packages: ${missing[*]}" >&2
  {
    apt-get update -qq &&
      DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}"
  } >/tmp/flota-apt.log 2>&1 || { tail -20 /tmp/flota-apt.log >&2; die "apt-get failed; see /tmp/flota-apt.log"; }
  rm -f /tmp/flota-apt.log
}

# python_environment EXTRAS: the venv with flota in it, made again only when the dependencies changed.
python_environment() {
  local extras=$1 stamp=$FLOTA_VENV/.flota-$1 wanted
  wanted=$(cat "$FLOTA_HOME/pyproject.toml" "$FLOTA_HOME/requirements.lock" | sha256sum)
  [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && return 0
  command -v python3 >/dev/null || apt_install python3
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' || die "Python 3.11 or newer is needed"
  if [ ! -x "$FLOTA_VENV/bin/pip" ]; then
    python3 -m venv "$FLOTA_VENV" 2>/dev/null || { apt_install python3-venv; python3 -m venv "$FLOTA_VENV"; }
  fi
  echo "installing Python packages" >&2
  "$FLOTA_VENV/bin/pip" install -q --disable-pip-version-check -c "$FLOTA_HOME/requirements.lock" \
    -e "$FLOTA_HOME[$extras]" >/tmp/flota-pip.log 2>&1 ||
    { tail -20 /tmp/flota-pip.log >&2; die "pip failed; see /tmp/flota-pip.log"; }
  rm -f /tmp/flota-pip.log
  echo "$wanted" >"$stamp"
}

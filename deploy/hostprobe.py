"""The words by which a host tells what it is: one script for any POSIX shell, run once as root. Pure.

It changes nothing on the host, needs no program beyond a shell and the basic tools (busybox has them), and
says lines of `KEY VALUE`, which `deploy.hostfacts` reads. Kernel features are known from the kernel's own
lists; only where there are none is a link made, in a network namespace that ends with the trial.
"""

from __future__ import annotations

from collections.abc import Sequence

BEGIN, END = "flota-facts 1", "flota-facts end"

FEATURES = ("overlay", "bridge", "veth", "vxlan", "nf_tables", "wireguard", "macvlan", "ipvlan", "8021q")

PROGRAMS = [
    "runc",
    "crun",
    "conmon",
    "nft",
    "tini",
    "ip",
    "wireguard-go",
    "flock",
    "timeout",
    "sha256sum",
    "tar",
    "modprobe",
    "systemctl",
    "rc-service",
    "apt-get",
    "dnf",
    "yum",
    "apk",
    "zypper",
    "pacman",
    "docker",
    "dockerd",
    "podman",
    "getenforce",
]

_SCRIPT = r"""
PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:$PATH
say() { printf '%s %s\n' "$1" "$(printf '%s' "$2" | tr -d '\000-\037\177' | cut -c1-400)"; }
have() { command -v "$1" >/dev/null 2>&1; }
first() { head -n 1 "$1" 2>/dev/null; }

os() {
  for file in /etc/os-release /usr/lib/os-release; do
    [ -r "$file" ] || continue
    for key in ID ID_LIKE VERSION_ID PRETTY_NAME; do
      say "os.$key" "$(sed -n "s/^$key=//p" "$file" | head -n 1 | tr -d "\"'")"
    done
    return
  done
}

libc() {
  if ls /lib/ld-musl-* >/dev/null 2>&1; then echo musl
  elif ls /lib*/ld-linux* /lib/*/ld-linux* /usr/lib*/ld-linux* >/dev/null 2>&1; then echo gnu
  fi
}

cgroups() {
  if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
    say cgroup 2
    say controllers "$(cat /sys/fs/cgroup/cgroup.controllers)"
  elif [ -r /proc/cgroups ]; then
    if grep -q ' /sys/fs/cgroup' /proc/mounts; then say cgroup 1; else say cgroup 0; fi
    say controllers "$(awk '!/^#/ && $4 == 1 { printf "%s ", $1 }' /proc/cgroups)"
  fi
}

release=$(uname -r)
configuration() { # NAME: y, m, n; empty: there is no list
  for file in "/boot/config-$release" "/lib/modules/$release/config" /proc/config.gz; do
    [ -r "$file" ] || continue
    case $file in *.gz) set -- "$1" "$(gzip -dc "$file" 2>/dev/null | grep "^$1=")" ;;
      *) set -- "$1" "$(grep "^$1=" "$file")" ;; esac
    case $2 in *=y) echo y ;; *=m) echo m ;; *) echo n ;; esac
    return
  done
}

tried() { # FEATURE: made once, where nobody sees it
  have unshare || return 1
  case $1 in
    nf_tables) have nft && unshare -n nft list tables ;;
    bridge | veth) have ip && unshare -n ip link add t0 type "$1" ;;
    vxlan) have ip && unshare -n ip link add t0 type vxlan id 1 dstport 4789 ;;
    *) return 1 ;;
  esac >/dev/null 2>&1
}

feature() { # NAME CONFIG: yes, no or unknown
  modules="/lib/modules/$release"
  if [ -e "/sys/module/$1" ] || grep -qw "$1" /proc/filesystems; then echo yes; return; fi
  if grep -q "/$1\.ko" "$modules/modules.builtin" 2>/dev/null; then echo yes; return; fi
  case $(configuration "$2") in
    y) echo yes; return ;;
    n) echo no; return ;;
  esac
  if grep -q "/$1\.ko" "$modules/modules.dep" 2>/dev/null; then echo yes; return; fi
  if tried "$1"; then echo yes; return; fi
  if [ -r "$modules/modules.dep" ]; then echo no; else echo unknown; fi
}

pythons() {
  for name in python3 python3.15 python3.14 python3.13 python3.12 python3.11; do
    path=$(command -v "$name" 2>/dev/null) || continue
    said=$("$path" -I -c 'import ctypes, lzma, platform, sqlite3, ssl, venv
print(platform.python_version())' 2>/dev/null) || said=$("$path" -I -c 'import platform
print(platform.python_version(), "bare")' 2>/dev/null) || continue
    say python "$path $said"
  done
}

free() { # PATH: KiB of the file system that it is or would be on
  where=$1
  while [ ! -d "$where" ]; do where=$(dirname "$where"); done
  df -Pk "$where" 2>/dev/null | awk 'NR == 2 { print $4 }'
}

addresses() {
  if have ip; then
    ip -o addr show 2>/dev/null | awk '$3 ~ /^inet/ { print $2, $4 }' | head -n 64 |
    while read -r link address; do
      say address "$link $address $(first "/sys/class/net/$link/mtu")"
    done
    say route "$(ip -4 route show default 2>/dev/null | sed -n 's/.* dev \([^ ]*\).*/\1/p' | head -n 1)"
  fi
}

sockets() { # of others than the kernel: those have an inode
  cat /proc/net/tcp /proc/net/tcp6 2>/dev/null |
    awk '$2 ~ /:1CFC$/ && $4 == "0A" { print; exit }' | grep -q . && say port 7420/tcp
  cat /proc/net/udp /proc/net/udp6 2>/dev/null |
    awk '$2 ~ /:12B5$/ && $10 != 0 { print; exit }' | grep -q . && say port 4789/udp
}

field() { sed -n "s/.*\"$1\":\"\([A-Za-z0-9_.+-]*\)\".*/\1/p" "$2" 2>/dev/null | head -n 1; }

ours() {
  root=/opt/flota
  if [ -e "$root" ] || [ -L "$root" ]; then
    known=$(cd "$root" 2>/dev/null && ls -d releases incoming packages .lock 2>/dev/null)
    if [ -n "$known" ] || [ -z "$(ls -A "$root" 2>/dev/null)" ]; then say opt ours
    else say opt foreign; fi
  fi
  [ -x "$root/current/bin/python" ] && say release "$(basename "$(readlink "$root/current")")"
  for name in agent controller; do
    [ -x "$root/$name/bin/python" ] && say pinned "$name $(basename "$(readlink "$root/$name")")"
  done
  command=/usr/local/bin/flota
  if [ -L "$command" ] && case $(readlink "$command") in "$root"/*) true ;; *) false ;; esac
  then say command ours
  elif [ -e "$command" ] || [ -L "$command" ]; then say command foreign; fi
  enrollment=/var/lib/flota/agent/enrollment.json
  if [ -e "$enrollment" ]; then
    say member "$(field fleet_id "$enrollment") $(field host_id "$enrollment") $(field name "$enrollment")"
  fi
  [ -e /var/lib/flota/controller/admin.json ] &&
    say controls "$(field fleet_id /var/lib/flota/controller/admin.json)"
  for name in agent controller; do
    pid=$(awk '{ print $1; exit }' "/run/flota/$name.pid" 2>/dev/null)
    case $pid in '' | *[!0-9]*) continue ;; esac
    if [ -d "/proc/$pid" ] && grep -qE "cli\.main|/bin/flota" "/proc/$pid/cmdline" 2>/dev/null; then
      say running "$name"
    fi
  done
}

others() {
  [ -S /run/docker.sock ] && say other docker
  [ -e /var/lib/docker/swarm/docker-state.json ] && say other swarm
  [ -d /var/lib/rancher ] && say other k3s
  [ -e /etc/kubernetes/kubelet.conf ] && say other kubernetes
  have podman && say other podman
  have getenforce && say selinux "$(getenforce 2>/dev/null)"
  [ -d /run/systemd/system ] && say init systemd
  [ -d /run/openrc ] && say init openrc
}

main() {
  say time "$(date +%s)"
  os
  say hostname "$(hostname 2>/dev/null || cat /proc/sys/kernel/hostname)"
  say kernel "$release"
  say machine "$(uname -m)"
  say libc "$(libc)"
  cgroups
  while read -r name option; do say feature "$name $(feature "$name" "$option")"; done <<EOF
@FEATURES@
EOF
  pythons
  say free.opt "$(free /opt/flota)"
  say free.lib "$(free /var/lib/flota)"
  say memory "$(awk '$1 == "MemTotal:" { print $2 }' /proc/meminfo)"
  say swap "$(awk 'NR > 1' /proc/swaps 2>/dev/null | wc -l)"
  addresses
  sockets
  for name in @PROGRAMS@; do have "$name" && say program "$name"; done
  while read -r pattern; do
    [ -n "$pattern" ] || continue
    for file in $pattern; do [ -e "$file" ] && { say file "$pattern"; break; }; done
  done <<'EOF'
@FILES@
EOF
  ours
  others
}

printf '%s\n' '@BEGIN@'
main </dev/null 2>/dev/null
printf '%s\n' '@END@'
"""

_OPTIONS = {
    "overlay": "CONFIG_OVERLAY_FS",
    "bridge": "CONFIG_BRIDGE",
    "veth": "CONFIG_VETH",
    "vxlan": "CONFIG_VXLAN",
    "nf_tables": "CONFIG_NF_TABLES",
    "wireguard": "CONFIG_WIREGUARD",
    "macvlan": "CONFIG_MACVLAN",
    "ipvlan": "CONFIG_IPVLAN",
    "8021q": "CONFIG_VLAN_8021Q",
}


def script(files: Sequence[str] = (), programs: Sequence[str] = ()) -> str:
    """The script; it also tells which of these `programs` are on the path, and which of `files` (patterns of
    the shell's, no spaces) are there."""
    if any(set(word) & set(" \n'\"$`;&|") for word in (*files, *programs)):
        raise ValueError(f"not for a shell: {files} {programs}")
    names = dict.fromkeys((*PROGRAMS, *programs))
    text = _SCRIPT.replace("@FEATURES@", "\n".join(f"{name} {_OPTIONS[name]}" for name in FEATURES))
    text = text.replace("@PROGRAMS@", " ".join(names)).replace("@FILES@", "\n".join(files))
    return text.replace("@BEGIN@", BEGIN).replace("@END@", END)

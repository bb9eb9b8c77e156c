#!/bin/bash
# Install the Debian packages that building and running need, and with an argument
# those that the target of that name needs besides:
# scripts/setup.sh [matrix|bench|vmm|check|mbox|quilt|coverage|kunit|deb].  Does nothing, and
# needs no network, when all are there.

# shellcheck source=scripts/common.sh
. "$(dirname "$0")/common.sh"

# package, and what for
packages='
gcc		compile kernel, tests and example
libc6-dev	compile kernel, tests and example
make		compile kernel, tests and example
git		apply the patches
flex		kernel build
bison		kernel build
bc		kernel build
libelf-dev	kernel build (objtool)
xz-utils	unpack the kernel source
ccache		compile each thing only once
uuid-dev	selftests (vfio library)
cpio		initramfs of the VM
busybox-static	shell and tools in the VM
qemu-system-x86	the VM
debian-archive-keyring	authenticate the kernel source
'

# for make matrix only
if [ "${1:-}" = matrix ]; then
	packages='
gcc-aarch64-linux-gnu	compile kernel and selftests for arm64
libc6-dev-arm64-cross	compile kernel and selftests for arm64
gcc-riscv64-linux-gnu	compile the kernel for riscv
gcc-s390x-linux-gnu	compile kernel and selftests for s390
libc6-dev-s390x-cross	compile kernel and selftests for s390
python3		check kernel-doc comments
'
fi

# for the KUnit tests only
if [ "${1:-}" = kunit ]; then
	packages='
python3		kunit.py
'
fi

# for make bench only
if [ "${1:-}" = bench ]; then
	packages='
gnuplot-nox	plot results
'
fi

# for make check only
if [ "${1:-}" = check ]; then
	packages='
perl		checkpatch
codespell	spelling
clang-19	the other compiler; the kernel asks for 17 or later
lld-19		link with it
llvm-19		build with it
coccinelle	semantic patches of the kernel
ocaml		some of them have code in it
python3		check kernel-doc comments
shellcheck	check the scripts
'
fi

# for make mbox only
if [ "${1:-}" = mbox ]; then
	packages='
perl		get_maintainer.pl
'
fi

# for make quilt only
if [ "${1:-}" = quilt ]; then
	packages='
quilt		apply what was exported
'
fi

# for make vmm only
if [ "${1:-}" = vmm ]; then
	packages='
stress-ng	load in the guest of the guest
'
fi

# for make deb only
if [ "${1:-}" = deb ]; then
	packages='
build-essential	build packages
dpkg-dev	build packages
debhelper	build packages
rsync		build packages
kmod		build packages
python3		kernel build
libdw-dev	kernel build
libssl-dev	kernel build (signatures of modules)
openssl		kernel build (a key for them)
xz-utils	compressed modules
zstd		compressed kernel
debootstrap	a Debian to install them into
'
fi

# for make coverage only
if [ "${1:-}" = coverage ]; then
	packages='
lcov		read the counters of the kernel, and write HTML
'
fi

missing=()
while read -r package purpose; do
	[ -n "$package" ] || continue
	[ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] && continue
	[ ${#missing[@]} -gt 0 ] || say "These Debian packages are missing:"
	printf '  %-24s%s\n' "$package" "$purpose"
	missing+=("$package")
done <<<"$packages"
[ ${#missing[@]} -gt 0 ] || exit 0

install="apt-get install -y --no-install-recommends ${missing[*]}"
sudo=
if [ "$(id -u)" != 0 ]; then
	sudo=sudo
	{ command -v sudo && sudo true; } >/dev/null ||
		die "only root can install packages; as root, run: apt-get update && $install"
fi
say "installing them: $install"
step packages "install packages" \
	sh -c "$sudo apt-get update && $sudo env DEBIAN_FRONTEND=noninteractive $install"

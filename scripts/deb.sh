#!/bin/bash
# Build Debian packages of the kernel with the series, install them into a root file
# system of Debian, boot what they contain, and run the KVM selftests on it.
#
# The configuration is Debian's for amd64.  Drivers that the VM does not need are left
# out (localmodconfig) to save time, as is what config/deb.config has; FULL=y leaves
# out no driver.  The packages are in build/deb.
#
# CONFIG= names another configuration to start from.

# shellcheck source=scripts/common.sh
. "$(dirname "$0")/common.sh"
# shellcheck source=scripts/apt.sh
. "$ROOT/scripts/apt.sh"
[ $# = 0 ] || { usage >&2; exit 2; }
patches_only

# For what it exports, check_config and build_id
# shellcheck source=scripts/kernel.sh
. "$ROOT/scripts/kernel.sh"

DEB=$OUT/deb
KERNEL=$DEB/build
SYSTEM=$DEB/root
# That of this machine
DEBIAN=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
# What lsmod would show in the VM, and in what order to load it
MODULES='ccp irqbypass kvm kvm-amd kvm-intel hwpoison-inject'

kmake() {
	make -C "$SRC" O="$KERNEL" ARCH=x86_64 CC="ccache gcc" HOSTCC="ccache gcc" LOCALVERSION= \
		-j"$(nproc)" "$@"
}

configure_deb() {
	local module

	cp -f "$1" "$KERNEL/.config" || return
	if [ "${FULL:-}" != y ]; then
		{
			echo 'Module Size Used by'
			for module in $MODULES; do
				echo "${module//-/_} 1 0"
			done
		} >"$DEB/lsmod"
		kmake olddefconfig &&
			kmake LSMOD="$DEB/lsmod" localmodconfig < <(yes '') || return
	fi
	cd "$SRC" && scripts/kconfig/merge_config.sh -m -Q -O "$KERNEL" "$KERNEL/.config" \
		"$ROOT/config/deb.config" || return
	kmake olddefconfig && check_config "$KERNEL/.config" "$ROOT/config/deb.config"
}

# packages: they come out beside the build folder
packages() {
	rm -f "$DEB"/*.deb "$DEB"/*.changes "$DEB"/*.buildinfo
	KDEB_PKGVERSION=$(release HEAD)-1 KDEB_CHANGELOG_DIST=UNRELEASED \
	DEBEMAIL=gmem@vm DEBFULLNAME=gmem \
		kmake bindeb-pkg
}

# debian: a small Debian in SYSTEM
debian() {
	local mirror

	# shellcheck disable=SC2016 # apt expands these
	mirror=$(env -u APT_CONFIG apt-get indextargets --format '$(LABEL)|$(COMPONENT)|$(SITE)' \
		'Created-By: Packages' | sed -n 's/^Debian|main|//p' | head -n 1)
	[ -n "$mirror" ] || die "apt knows no Debian mirror; run apt-get update as root"
	as_root rm -rf --one-file-system "$SYSTEM" "$SYSTEM.new" &&
		as_root debootstrap --variant=minbase --include=kmod,linux-base "$DEBIAN" \
			"$SYSTEM.new" "$mirror" &&
		as_root mv "$SYSTEM.new" "$SYSTEM"
}

# install_packages: as dpkg does it
install_packages() {
	as_root rm -rf "$SYSTEM/packages" && as_root mkdir "$SYSTEM/packages" &&
		as_root cp "$DEB"/*.deb "$SYSTEM/packages/" &&
		as_root chroot "$SYSTEM" sh -c 'dpkg -i /packages/*.deb' &&
		as_root rm -r "$SYSTEM/packages"
}

# variant: lay out what was installed as scripts/vm.sh expects a kernel that is built
# here, see row_plan
variant() {
	local at=$DEB/vm/kernel-y module file
	local modules=$SYSTEM/lib/modules/$RELEASE

	rm -rf "$DEB/vm"
	mkdir -p "$at"/{virt/lib,arch/x86/kvm} "$DEB/vm/root/modules"
	cp "$SYSTEM/boot/vmlinuz-$RELEASE" "$at/vmlinux"
	for module in $MODULES; do
		file=$(find "$modules" -name "$module.ko*" | head -n 1)
		[ -n "$file" ] || die "the package has no module $module"
		case $module in
		irqbypass) unpacked "$file" >"$at/virt/lib/$module.ko" ;;
		kvm*) unpacked "$file" >"$at/arch/x86/kvm/$module.ko" ;;
		*) unpacked "$file" >"$DEB/vm/root/modules/$module.ko" ;;
		esac
	done
	# Those of the package linux-libc-dev
	cp -r "$SYSTEM/usr/include" "$DEB/vm/uapi"
	mv "$DEB/vm/uapi/x86_64-linux-gnu"/* "$DEB/vm/uapi/"
}

unpacked() {
	case $1 in
	*.xz) xz -dc "$1" ;;
	*.zst) zstd -dc "$1" ;;
	*) cat "$1" ;;
	esac
}

[ "$(id -u)" = 0 ] || say "To install the packages into ${SYSTEM#"$ROOT"/} takes root:"
as_root true
mkdir -p "$KERNEL"
config=${CONFIG:-$(debian_config amd64 "$DEB")}
id=$({ sha256sum "$config" "$ROOT"/{config/deb.config,scripts/deb.sh}; build_id; echo "${FULL:-}"; } | sha256sum)
if [ "$(cat "$DEB/build-id" 2>/dev/null)" != "$id" ]; then
	rm -f "$DEB/build-id"
	step deb-config "configure as Debian does" configure_deb "$config"
	step deb-build "build packages" packages
	echo "$id" >"$DEB/build-id"
fi
RELEASE=$(cat "$KERNEL/include/config/kernel.release")
[ -e "$SYSTEM" ] || step deb-debian "install Debian ($DEBIAN) into ${SYSTEM#"$ROOT"/}" debian
step deb-install "install packages there" install_packages
variant

say "Packages:"
(cd "$DEB" && du -h -- *.deb | sed 's/^/    /')
say "The VM runs Linux $RELEASE from them:"
# shellcheck disable=SC2016 # the shell in the VM expands this
FIRST='for f in /modules/*.ko; do insmod $f || exit; done' FILES=$DEB/vm/root \
	GMEM_OUT=$DEB/vm ROWS=34 PLAN=deb "$ROOT/scripts/test.sh"

#!/bin/bash
# Make build/src a git repository of the kernel source that patches/ is for, the
# commit that the tag "base" names.
#
# That is Debian's package linux-source-7.3, the newest that backports, sid and
# experimental offer when this is first run; or KERNEL_SRC=, a source tree or
# tarball of 7.3.y.  The tag's message records which source exactly.

# shellcheck source=scripts/common.sh
. "$(dirname "$0")/common.sh"
# shellcheck source=scripts/apt.sh
. "$ROOT/scripts/apt.sh"

RELEASE=7.3
PACKAGE=linux-source-$RELEASE

fetch_package() {
	local debs=("$BASE/$PACKAGE"_*.deb) version

	[ ! -e "${debs[0]}" ] || return 0
	apt_setup Packages
	version=$(apt_versions "$PACKAGE" | tail -n 1)
	[ -n "$version" ] || die "the mirror has no package $PACKAGE; give KERNEL_SRC="
	step download "download $PACKAGE $version" apt_download "$PACKAGE" "$version"
}

# The files of the tree KERNEL_SRC; of a git work tree only those that git knows
tree_files() {
	cd "$KERNEL_SRC"
	if [ -e .git ]; then
		git ls-files -z
	else
		find . ! -type d -print0
	fi
}

# unpack DIRECTORY: the source, as KERNEL_SRC says
unpack() {
	local debs

	mkdir "$1" || return
	if [ -z "${KERNEL_SRC:-}" ]; then
		debs=("$BASE/$PACKAGE"_*.deb)
		dpkg-deb --fsys-tarfile "${debs[-1]}" |
			tar -xO "./usr/src/$PACKAGE.tar.xz" | tar -xJ -C "$1" --strip-components=1
	elif [ -d "$KERNEL_SRC" ]; then
		tree_files | tar -C "$KERNEL_SRC" -c --null -T - | tar -C "$1" -x
	else
		tar -xf "$KERNEL_SRC" -C "$1" --strip-components=1
	fi
}

# One line that names the source, and changes when it does
source_id() {
	local debs sum

	if [ -z "${KERNEL_SRC:-}" ]; then
		debs=("$BASE/$PACKAGE"_*.deb)
		sum=$(sha256sum "${debs[-1]}")
		echo "$(dpkg-deb -f "${debs[-1]}" Package Version | sed 's/.*: //' | paste -sd ' '), sha256 ${sum%% *}"
	elif [ -d "$KERNEL_SRC" ]; then
		sum=$(cd "$KERNEL_SRC" && tree_files | sort -z | xargs -0 stat -c '%n %s %Y' | sha256sum)
		echo "tree $KERNEL_SRC, sha256 of its listing ${sum%% *}"
	else
		sum=$(sha256sum "$KERNEL_SRC")
		echo "tarball $KERNEL_SRC, sha256 ${sum%% *}"
	fi
}

# check DIRECTORY: the series is for this release, and not for a tree that has it
check() {
	local name value version=''

	while read -r name _ value; do
		case $name in
		VERSION) version=$value ;;
		PATCHLEVEL) version+=.$value; break ;;
		esac
	done <"$1/Makefile"
	[ "$version" = "$RELEASE" ] ||
		die "KERNEL_SRC is Linux ${version:-(no kernel source)}, and the patches are for $RELEASE.y"
	! grep -rqE 'KVM_SET_MEMORY_ATTRIBUTES2|gmem_in_place_conversion' \
		"$1/include/uapi/linux/kvm.h" "$1/virt/kvm" ||
		die "KERNEL_SRC has in-place conversion already; give the source without the patches"
}

# import DIRECTORY ID: make a repository of it.  The commit depends on content
# only.  With the threshold git writes one pack instead of a file for each blob.
import() {
	export GIT_AUTHOR_NAME=base GIT_AUTHOR_EMAIL='' GIT_AUTHOR_DATE='@0 +0000'
	export GIT_COMMITTER_NAME=base GIT_COMMITTER_EMAIL='' GIT_COMMITTER_DATE='@0 +0000'
	cd "$1" && git init -q -b main . &&
		git config gc.auto 0 && git config core.untrackedCache true &&
		git -c core.bigFileThreshold=1 -c core.compression=1 add --all --force . &&
		git commit -q -m "Linux source without the series" &&
		git tag -a -m "$2" base
}

if [ -n "${KERNEL_SRC:-}" ]; then
	[ -e "$KERNEL_SRC" ] || die "KERNEL_SRC=$KERNEL_SRC does not exist"
	KERNEL_SRC=$(realpath "$KERNEL_SRC")
fi
recorded=$(git -C "$REPO" tag -l --format='%(contents:subject)' base 2>/dev/null || true)

# What is there stays the base, until KERNEL_SRC says otherwise.
if [ -z "${KERNEL_SRC:-}" ] && [ -n "$recorded" ]; then
	say "base: $recorded"
	exit
fi
[ -n "${KERNEL_SRC:-}" ] || fetch_package
id=$(source_id)
if [ "$id" != "$recorded" ]; then
	rm -rf "$BUILD/src.new"
	step unpack "unpack the kernel source" unpack "$BUILD/src.new"
	check "$BUILD/src.new"
	step import "make a git repository of it" import "$BUILD/src.new" "$id"
	if [ -e "$REPO" ]; then
		git -C "$REPO" fetch -q --force "$BUILD/src.new" tag base
		step remove "remove the unpacked copy" rm -rf "$BUILD/src.new"
	else
		mv "$BUILD/src.new" "$REPO"
	fi
fi
say "base: $id"

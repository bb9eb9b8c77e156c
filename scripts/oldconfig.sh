#!/bin/bash
# What "make oldconfig" asks, and what comes out, if Debian's amd64 configuration
# of the base is used for the series.
#
# CONFIG= names another configuration to start from.

# shellcheck source=scripts/common.sh
. "$(dirname "$0")/common.sh"
# shellcheck source=scripts/apt.sh
. "$ROOT/scripts/apt.sh"
[ $# = 0 ] || { usage >&2; exit 2; }
patches_only

DIR=$BUILD/oldconfig

# update NAME TREE: an oldconfig that takes the default for what is new
update() {
	mkdir -p "$DIR/$1"
	cp "$config" "$DIR/$1/.config"
	make -s -C "$2" O="$DIR/$1" ARCH=x86_64 olddefconfig
}

# new NAME TREE: the symbols that oldconfig asks for
new() {
	mkdir -p "$DIR/$1"
	cp "$config" "$DIR/$1/.config"
	make -s -C "$2" O="$DIR/$1" ARCH=x86_64 listnewconfig
}

mkdir -p "$DIR"
"$ROOT/scripts/unpatched.sh"
config=${CONFIG:-$(debian_config amd64 "$DIR")}
for name in unpatched src; do
	new "$name" "$BUILD/$name" 2>/dev/null | grep -v '^#' | sort >"$DIR/$name.new"
	step "oldconfig-$name" "olddefconfig, build/$name" update "$name" "$BUILD/$name"
done

say "Starting from $(basename "$config"), oldconfig of the series asks for, beyond what the base asks for:"
comm -13 "$DIR/unpatched.new" "$DIR/src.new" | sed 's/^/    /'
say "With the default answer, its result differs from the base's in:"
"$REPO/scripts/diffconfig" "$DIR/unpatched/.config" "$DIR/src/.config" | sed 's/^/    /'

#!/bin/bash
# Write the series as a tarball for a queue like debian/patches:
# build/quilt/gmem-in-place-conversion.tar.xz, a directory with the patches and
# their series file.  The same patches always give the same bytes.

# shellcheck source=scripts/common.sh
. "$(dirname "$0")/common.sh"
[ $# = 0 ] || { usage >&2; exit 2; }
patches_only

NAME=gmem-in-place-conversion
QUILT=$BUILD/quilt
PRISTINE=$BUILD/pristine

# write TARBALL
write() {
	rm -rf "$QUILT/root"
	mkdir -p "$QUILT/root/$NAME" && cd "$QUILT/root" &&
		queue_files >"$NAME/series" &&
		(cd "$ROOT/patches" && queue_files | xargs cp -t "$QUILT/root/$NAME") &&
		cp "$ROOT/patches/0000-cover-letter.patch" "$NAME/README" &&
		chmod -R u=rwX,go=rX . &&
		tar --sort=name --mtime="@$(git -C "$REPO" log --format=%at refs/tags/base..refs/heads/queue | sort -n | tail -n 1)" \
			--owner=0 --group=0 --numeric-owner --format=ustar -c "$NAME" | xz -9 --threads=1 >"$1"
}

# Twice the same, and what quilt makes of it is the tree that patches/ makes
verify() {
	write "$QUILT/again.tar.xz" && cmp "$QUILT/new.tar.xz" "$QUILT/again.tar.xz" || return
	rm -rf "$QUILT/root"
	mkdir "$QUILT/root"
	tar -xf "$QUILT/new.tar.xz" -C "$QUILT/root" && work_tree "$PRISTINE" refs/tags/base &&
		cd "$PRISTINE" || return
	QUILT_PATCHES=$QUILT/root/$NAME QUILT_PC=$QUILT/root/pc quilt --quiltrc - push -a -q --fuzz=0 &&
		git add --all --force . &&
		[ "$(git write-tree)" = "$(git -C "$REPO" rev-parse 'queue^{tree}')" ]
}

mkdir -p "$QUILT"
step quilt "write the tarball" write "$QUILT/new.tar.xz"
step quilt-verify "verify it" verify
mv "$QUILT/new.tar.xz" "$QUILT/$NAME.tar.xz"
rm -rf "$QUILT"/{root,again.tar.xz}
sha256sum "$QUILT/$NAME.tar.xz" | sed "s,$ROOT/,,"
say "In a Debian kernel package, after its own patches:
    tar -xf $NAME.tar.xz -C debian/patches/features/all
    sed 's,^,features/all/$NAME/,' debian/patches/features/all/$NAME/series >>debian/patches/series"

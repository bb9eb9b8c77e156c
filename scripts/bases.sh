#!/bin/bash
# See which 7.3.y the series applies to, without fuzz, and works on: all that
# Debian's backports, sid and experimental offer as linux-source-7.3, and the
# upstream tarballs of their source packages.  Prints a table.
#
# BASES='*orig*' does only those that match; SMOKE=n only applies.

# shellcheck source=scripts/common.sh
. "$(dirname "$0")/common.sh"
# shellcheck source=scripts/apt.sh
. "$ROOT/scripts/apt.sh"
[ $# = 0 ] || { usage >&2; exit 2; }
patches_only

PACKAGE=linux-source-7.3
BASES_DIR=$BUILD/bases

# Lines FILE VERSION of what is to be had, oldest first, release candidates aside.
# A tarball is that of many versions of the package.
available() {
	local version

	apt_versions "$PACKAGE" | sed '/~rc/d' | while read -r version; do
		echo "${PACKAGE}_${version}_all.deb $version"
	done
	apt-cache showsrc linux | sed -n 's/^Version: \(7\.3\..*\)/\1/p' | sort -Vu |
		while read -r version; do
			echo "linux_${version%-*}.orig.tar.xz $version"
		done | sort -V -u -k 1,1
}

# download FILE VERSION: succeeds without the file if it is of a source package that the
# mirror lists but does not have
download() {
	case $1 in
	*.deb) apt_download "$PACKAGE" "$2" "$BASES_DIR" ;;
	*)
		rm -rf "$BASES_DIR/partial" && mkdir "$BASES_DIR/partial" && cd "$BASES_DIR/partial" || return
		if apt-get source --download-only --tar-only "linux=$2" 2>apt.errors; then
			mv -- "$1" "$BASES_DIR/"
		else
			cat apt.errors
			grep -q '404  *Not Found' apt.errors
		fi
		;;
	esac
}

unpack() {
	rm -rf "$BASES_DIR/tree"
	mkdir "$BASES_DIR/tree" || return
	case $1 in
	*.deb)
		dpkg-deb --fsys-tarfile "$1" | tar -xO "./usr/src/$PACKAGE.tar.xz" |
			tar -xJ -C "$BASES_DIR/tree" --strip-components=1
		;;
	*) tar -xf "$1" -C "$BASES_DIR/tree" --strip-components=1 ;;
	esac
}

# commit_tree MESSAGE TREE [PARENT]: a commit that depends on nothing else
commit_tree() {
	GIT_AUTHOR_NAME=base GIT_AUTHOR_EMAIL='' GIT_AUTHOR_DATE='@0 +0000' \
	GIT_COMMITTER_NAME=base GIT_COMMITTER_EMAIL='' GIT_COMMITTER_DATE='@0 +0000' \
		git -C "$REPO" commit-tree ${3:+-p "$3"} -m "$1" "$2"
}

# ref FILE: the name of its commit, in which git does not allow all characters
ref() {
	echo "refs/gmem/bases/${1//[~^:]/_}"
}

# import FILE: becomes ref FILE.  git has most of the files already.
import() {
	export GIT_DIR=$REPO/.git GIT_WORK_TREE=$BASES_DIR/tree GIT_INDEX_FILE=$BASES_DIR/index

	unpack "$BASES_DIR/$1" || return
	rm -f "$GIT_INDEX_FILE"
	(cd "$GIT_WORK_TREE" && git -c core.untrackedCache=false add --all --force .) || return
	git update-ref "$(ref "$1")" "$(commit_tree "$1" "$(git write-tree)")" || return
	rm -rf "$BASES_DIR/tree"
}

# imported FILE: whether it was
imported() {
	git -C "$REPO" rev-parse -q --verify "$(ref "$1")" >/dev/null
}

# apply FILE: prints the commit with the series
apply() {
	local base patch

	base=$(ref "$1")
	export GIT_INDEX_FILE=$BASES_DIR/index
	rm -f "$GIT_INDEX_FILE"
	cd "$REPO" && git read-tree "$base" || return
	for patch in $(queue_files); do
		git apply --cached --whitespace=nowarn "$ROOT/patches/$patch" || {
			echo "$patch does not apply" >&2
			return 1
		}
	done
	commit_tree "$1, with the series" "$(git write-tree)" "$(git rev-parse "$base")"
}

mkdir -p "$BASES_DIR"
apt_setup Packages
apt_setup Sources
available >"$BASES_DIR/available"
[ -s "$BASES_DIR/available" ] || die "the mirror has no Linux 7.3"
passed=0 failed=0 skipped=0
while read -r file version; do
	# shellcheck disable=SC2053 # BASES is a pattern
	[[ $file = ${BASES:-*} ]] || continue
	! imported "$file" || continue
	[ -e "$BASES_DIR/$file" ] ||
		step "bases-$file" "download $file" download "$file" "$version"
	[ ! -e "$BASES_DIR/$file" ] || step "bases-$file" "import $file" import "$file"
done <"$BASES_DIR/available"

trap '"$ROOT/scripts/queue.sh"' EXIT
printf '%-46s%-10s%-9s%-8s%5s  %s\n' base release applies works s 'smoke test'
while read -r file version; do
	# shellcheck disable=SC2053 # BASES is a pattern
	[[ $file = ${BASES:-*} ]] || continue
	if ! imported "$file"; then
		printf '%-46s%-10s%s\n' "$file" skipped \
			"listed, but 404 Not Found; to include it, put it into ${BASES_DIR#"$ROOT/"}"
		skipped=$((skipped + 1))
		continue
	fi
	printf '%-46s%-10s' "$file" "$(release "$(ref "$file")")"
	if ! commit=$(apply "$file" 2>"$LOG/bases-apply.err"); then
		printf '%-9s%s\n' FAILED "$(tail -n 1 "$LOG/bases-apply.err")"
		failed=$((failed + 1))
		continue
	fi
	printf '%-9s' yes
	if [ "${SMOKE:-y}" = n ]; then
		echo
	elif ! "$ROOT/scripts/smoke.sh" "bases-$file" "$commit"; then
		failed=$((failed + 1))
		continue
	fi
	passed=$((passed + 1))
done <"$BASES_DIR/available"
[ $((passed + failed + skipped)) -gt 0 ] || die "no base matches $BASES"
say "$passed passed, $failed failed, $skipped skipped, $SECONDS s"
[ $((passed + failed)) -gt 0 ] || die "none of them is to be had"
[ "$failed" = 0 ] || die "the series is not for all of them"

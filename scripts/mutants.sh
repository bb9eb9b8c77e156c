#!/bin/bash
# Make one small mistake after the other in the kernel code of the series, and see
# whether the tests notice: each of mutants/*.patch has to be caught.
#
# A patch has a title, the rows of vm/tests in which to run tests, and which
# programs to run first; all others are run only if these notice nothing.  The
# kernel is the one with the fragments debug and fault of config/, and only what
# a mistake changes is compiled.  A mutant that was caught is not tried again
# until the kernel, the tests or the mutant change.
#
# MUTANTS='zap-*' tries only those whose names match.

# shellcheck source=scripts/common.sh
. "$(dirname "$0")/common.sh"
[ $# = 0 ] || { usage >&2; exit 2; }
[ -z "${TREE:-}" ] || die "make mutants is for patches/, not for TREE=; run make export first"

export DEBUG=debug-fault
# build/src is changed for each mutant.  Until the change is undone, this makes
# queue.sh undo it, should that not happen here.
GUARD=refs/gmem/target
MUTANTS_OUT=$BUILD/mutants
mkdir -p "$MUTANTS_OUT/log"

restore() {
	git -C "$SRC" reset -q --hard HEAD
	git -C "$SRC" update-ref -d "$GUARD"
}

# field NAME PATCH: of a patch's header
field() {
	sed -n "/^--- /q; s/^$1: //p" "$2"
}

# prepare VARIANT: a copy of what is built without a mistake, to build on
prepare() {
	local new=$BUILD/kernel-$1 old=$MUTANTS_OUT/kernel-$1

	[ "$(cat "$old/original-id" 2>/dev/null)" != "$(cat "$new/build-id")" ] || return 0
	rm -rf "$old"
	cp -a "$new" "$old"
	cp "$old/build-id" "$old/original-id"
}

# build ROW: the kernel that the row needs, of the source as it is
build() {
	GMEM_OUT=$MUTANTS_OUT "$ROOT/scripts/kernel.sh" "$(row_variant "$1")"
}

# run_tests ROW [PROGRAM...]: fails if any test does
run_tests() {
	local row=$1 pattern

	shift
	pattern=$(IFS='|'; echo "@($*)")
	[ $# -gt 0 ] || pattern=
	GMEM_OUT=$MUTANTS_OUT ROWS=$row TESTS=$pattern PLAN=mutant "$ROOT/scripts/test.sh"
}

# caught LOG: what noticed, if the log says that something did
caught() {
	sed -nE 's/^FAILED  (row [0-9]: [^ ]*).*/\1/p; s/^The kernel complained.*/the kernel itself/p' "$1" |
		head -n 1 | grep .
}

# How it was built and what is run, beside the mutant
common_id() {
	cat "$BUILD"/kernel-{n,y}-"$DEBUG"/build-id
	cd "$ROOT" && sha256sum vm/* scripts/{mutants,test,vm,judge}.sh
}

# attempt LOG: build what is mutated, and run tests until one fails
attempt() {
	local log=$1 row tests

	read -ra tests <<<"$(field Tests "$patch")"
	row=$(field Rows "$patch")
	{ build "$row"; } >"$log" 2>&1 || { echo "does not build"; return; }
	if [ ${#tests[@]} -gt 0 ]; then
		run_tests "$row" "${tests[@]}" >>"$log" 2>&1 </dev/null || true
		caught "$log" && return
	fi
	for row in "$row" $(tr -d "$row" <<<1432 | grep -o .); do
		{ build "$row" && run_tests "$row"; } >>"$log" 2>&1 </dev/null || true
		caught "$log" && return
	done
	echo "nothing"
}

# try PATCH: prints its line
try() {
	local patch=$1 name id stamp start=$SECONDS by verdict=caught

	name=$(basename "$patch" .patch)
	stamp=$MUTANTS_OUT/ok-$name
	id=$({ echo "$common_id"; cat "$patch"; } | sha256sum)
	if [ "$(head -n 1 "$stamp" 2>/dev/null)" = "$id" ]; then
		by=$(sed -n 2p "$stamp")
	else
		rm -f "$stamp"
		git -C "$SRC" update-ref "$GUARD" HEAD
		git -C "$SRC" apply --whitespace=nowarn "$patch" ||
			die "mutants/$name.patch does not apply: adapt it to the series"
		by=$(attempt "$LOG/mutant-$name.log")
		restore
		case $by in
		nothing) verdict=MISSED ;;
		'does not build') verdict=INVALID ;;
		*) printf '%s\n' "$id" "$by" >"$stamp" ;;
		esac
	fi
	printf '%-8s%5s  %-26s%s\n' "$verdict" $((SECONDS - start)) "$name" "$(head -n 1 "$patch")"
	printf '%15s  %-26sby %s\n' '' '' "$by"
	[ "$verdict" = caught ]
}

"$ROOT/scripts/kernel.sh" "n-$DEBUG" "y-$DEBUG"
prepare "n-$DEBUG"
prepare "y-$DEBUG"
ln -sfn ../tests "$MUTANTS_OUT/tests"
common_id=$(common_id)
trap restore EXIT

# Without a mistake, nothing may fail
id=$(sha256sum <<<"$common_id")
if [ "$(cat "$MUTANTS_OUT/ok-none" 2>/dev/null)" != "$id" ]; then
	for row in 1 2 3 4; do
		build "$row" >"$LOG/mutant-none-$row.log" 2>&1
		start=$SECONDS
		run_tests "$row" >>"$LOG/mutant-none-$row.log" 2>&1 </dev/null ||
			die "row $row fails without a mutant, see ${LOG#"$ROOT/"}/mutant-none-$row.log"
		say "row $row passes without a mutant: $((SECONDS - start)) s"
	done
	echo "$id" >"$MUTANTS_OUT/ok-none"
fi

nr_caught=0 nr_missed=0
for patch in "$ROOT"/mutants/*.patch; do
	# shellcheck disable=SC2053 # MUTANTS is a pattern
	[[ $(basename "$patch" .patch) = ${MUTANTS:-*} ]] || continue
	if try "$patch"; then
		nr_caught=$((nr_caught + 1))
	else
		nr_missed=$((nr_missed + 1))
	fi
done
[ $((nr_caught + nr_missed)) -gt 0 ] || die "no mutant matches ${MUTANTS:-*}"
say "took $SECONDS s"
say "$nr_caught passed, $nr_missed failed, 0 skipped: $nr_caught of $((nr_caught + nr_missed)) mutants caught"
[ "$nr_missed" = 0 ] || die "see ${LOG#"$ROOT/"}/mutant-*.log"

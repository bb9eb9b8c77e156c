#!/bin/bash
# Make one small mistake after the other in the kernel code of the series, and see
# whether the tests notice: each of mutants/*.patch has to be caught.
#
# A patch has a title, the row of vm/tests in which to run tests, and which programs
# to run first; all others are run only if these notice nothing, and nothing more is
# run once something has failed.  Without a mistake, none of them may fail.  Its
# kernel is the one of "make test", or that with the fragments debug and fault of
# config/, which runs the KUnit tests, and only what a mistake changes is compiled.  A
# mutant that was caught is not tried again until the kernel, the tests or the mutant
# change.
#
# MUTANTS='zap-*' tries only those whose names match.

# shellcheck source=scripts/common.sh
. "$(dirname "$0")/common.sh"
[ $# = 0 ] || { usage >&2; exit 2; }
patches_only

# build/src is changed for each mutant.  Until the change is undone, this makes
# queue.sh undo it, should that not happen here.
GUARD=refs/gmem/target
MUTANTS_OUT=$BUILD/mutants
mkdir -p "$MUTANTS_OUT/log"

# For what it exports, so that only what a mistake changes is built again
# shellcheck source=scripts/kernel.sh
. "$ROOT/scripts/kernel.sh"

restore() {
	git -C "$SRC" reset -q --hard HEAD
	git -C "$SRC" update-ref -d "$GUARD"
}

# field NAME PATCH: of a patch's header
field() {
	sed -n "/^--- /q; s/^$1: //p" "$2"
}

# kernel PATCH: the DEBUG that it is for
kernel() {
	field Kernel "$1"
}

# prepare VARIANT: a copy of what is built without a mistake, to build on
prepare() {
	local new=$BUILD/kernel-$1 old=$MUTANTS_OUT/kernel-$1

	"$ROOT/scripts/kernel.sh" "$1"
	[ "$(cat "$old/original-id" 2>/dev/null)" != "$(cat "$new/build-id")" ] || return 0
	rm -rf "$old" "$old.new"
	copy_kernel "$new" "$old"
	cp "$new/build-id" "$old/original-id"
}

# build ROW PATCH: what the row needs, of the source as it is.  That is KVM only,
# unless this mutant changes something else, or the one that was built before did.
build() {
	local out elsewhere targets=(virt/lib/irqbypass.ko arch/x86/kvm/{kvm,kvm-amd,kvm-intel}.ko)

	out=$MUTANTS_OUT/kernel-$(row_variant "$1")
	elsewhere=$(grep '^--- ' "$2" | grep -vE '^--- a/(arch/x86|virt)/kvm/' || true)
	[ -z "$elsewhere" ] || touch "$out/all-changed"
	[ ! -e "$out/all-changed" ] || targets=(vmlinux modules)
	make -C "$SRC" O="$out" CC="ccache gcc" LOCALVERSION= -j"$(nproc)" "${targets[@]}" || return
	[ -n "$elsewhere" ] || rm -f "$out/all-changed"
}

# run_tests ROW [PROGRAM...]: until one fails, and then fail
run_tests() {
	local row=$1 pattern=''

	shift
	[ $# = 0 ] || pattern=$(IFS='|'; echo "@($*)")
	ROWS=$row TESTS=$pattern STOP=y PLAN=mutant "$ROOT/scripts/test.sh" </dev/null
}

# mutated ROW [PROGRAM...]: run_tests with the mutant
mutated() {
	GMEM_OUT=$MUTANTS_OUT run_tests "$@"
}

# sound ROW: run_tests without a mutant has to pass
sound() {
	local log=$LOG/mutant-none-${DEBUG:-plain}-$1.log start=$SECONDS stamp

	stamp=$MUTANTS_OUT/sound-$(printf '%s\n' "$DEBUG" "$common_id" "$1" | sha256sum | cut -c1-16)
	[ ! -e "$stamp" ] || return 0
	run_tests "$1" >"$log" 2>&1 || die "row $1 fails without a mutant, see ${log#"$ROOT/"}"
	touch "$stamp"
	say "row $1${DEBUG:+, $DEBUG} passes without a mutant: $((SECONDS - start)) s"
}

# caught LOG: what noticed, if the log says that something did.  That the VM did not
# get as far as to run a program is no proof.
caught() {
	grep -qE '^(#start|not ok)' "$MUTANTS_OUT/log/vm-mutant.tap" || return
	sed -nE 's/^FAILED  (row [0-9]: [^ ]*).*/\1/p; s/^The kernel complained.*/the kernel itself/p' "$1" |
		head -n 1 | grep .
}

# How it was built and what is run, beside the mutant
common_id() {
	cat "$MUTANTS_OUT"/kernel-*/original-id
	selftests_id
	cd "$ROOT" && sha256sum vm/{init.c,tests,problems} scripts/{mutants,test,vm,judge}.sh
}

# attempt LOG: build what is mutated, and run tests until one fails
attempt() {
	local log=$1 row tests

	read -ra tests <<<"$(field Tests "$patch")"
	row=$(field Rows "$patch")
	build "$row" "$patch" >"$log" 2>&1 || { echo "does not build"; return; }
	mutated "$row" "${tests[@]}" >>"$log" 2>&1 || true
	caught "$log" && return
	mutated "$row" >>"$log" 2>&1 || true
	caught "$log" || echo nothing
}

# try PATCH: prints its line
try() {
	local patch=$1 name id stamp start=$SECONDS by verdict=caught

	DEBUG=$(kernel "$patch")
	export DEBUG
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

patches=()
for patch in "$ROOT"/mutants/*.patch; do
	# shellcheck disable=SC2053 # MUTANTS is a pattern
	[[ $(basename "$patch" .patch) = ${MUTANTS:-*} ]] || continue
	patches+=("$patch")
done
[ ${#patches[@]} -gt 0 ] || die "no mutant matches ${MUTANTS:-*}"

# needed ROW DEBUG: whether any mutant is for them
needed() {
	for patch in "${patches[@]}"; do
		[ "$(field Rows "$patch") $(kernel "$patch")" != "$1 $2" ] || return 0
	done
	return 1
}

for DEBUG in '' debug-fault; do
	export DEBUG
	for patch in "${patches[@]}"; do
		[ "$(kernel "$patch")" != "$DEBUG" ] || row_variant "$(field Rows "$patch")"
	done
done | sort -u >"$MUTANTS_OUT/variants"
while read -r variant; do
	prepare "$variant" </dev/null
done <"$MUTANTS_OUT/variants"
ln -sfn ../tests "$MUTANTS_OUT/tests"
ln -sfn ../uapi "$MUTANTS_OUT/uapi"
common_id=$(common_id)
trap restore EXIT

# What the tests say is worth something only if they say nothing otherwise
for DEBUG in '' debug-fault; do
	export DEBUG
	for row in 1 2 3 4; do
		! needed "$row" "$DEBUG" || sound "$row"
	done
done

nr_caught=0 nr_missed=0
for patch in "${patches[@]}"; do
	if try "$patch"; then
		nr_caught=$((nr_caught + 1))
	else
		nr_missed=$((nr_missed + 1))
	fi
done
say "took $SECONDS s"
say "$nr_caught passed, $nr_missed failed, 0 skipped"
[ "$nr_missed" = 0 ] || die "see ${LOG#"$ROOT/"}/mutant-*.log"

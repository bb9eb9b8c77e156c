#!/bin/bash
# Run the tests of vm/tests, and those for this purpose only, with kernels that
# check themselves, and print a table.
#
# Each kernel and row of vm/tests is a run of its own, in a VM of its own; two of them
# run side by side.  One that passed is not run again until anything that it depends on
# changes.  Meanwhile the next kernel is built, with the time that is left.
#
# KERNELS='kasan*' runs only kernels that match, ROWS=1 only that row,
# TESTS='guest_memfd*' only programs that match.

# shellcheck source=scripts/common.sh
. "$(dirname "$0")/common.sh"
[ $# = 0 ] || { usage >&2; exit 2; }

# Fragments of config/ that make a kernel, and what it checks
kernels='
debug-fault	locking, memory management, maple tree, KVM MMU; allocations fail
kasan-fault	memory safety, undefined behaviour, leaks; allocations fail
kcsan-fault	data races; allocations fail
'
STAMPS=$OUT/stress
rows=${ROWS:-14}
mkdir -p "$STAMPS"

# What a run depends on
run_id() {
	cat "$OUT/kernel-$variant/build-id"
	selftests_id
	echo "$DEBUG $row ${TESTS:-*}"
	cd "$ROOT" && sha256sum vm/* config/*.config scripts/{stress,test,vm,judge,selftests,common}.sh
	qemu-system-x86_64 --version
}

# operations: how many the fuzzer does in this row
operations() {
	[ -e "$SRC/tools/testing/selftests/kvm/guest_memfd_fuzz_test.c" ] || { echo 0; return; }
	awk -v row="$row" '
		($1 == "test" || $1 == "stress") && index($2, row) && $4 ~ /fuzz/ {
			for (i = 5; i < NF; i++)
				n += $i == "--ops" ? $(i + 1) : 0
		}
		END { print n + 0 }' "$ROOT/vm/tests"
}

# run ROW: one row with one kernel; its output is in the log.  The line for it, and the
# counts, come to files beside the stamp.
run() {
	local row=$1 log=$LOG/stress-$DEBUG-$1.log stamp=$STAMPS/$DEBUG-$1 start=$SECONDS
	local variant id line verdict=ok text=''

	variant=$(row_variant "$row")
	rm -f "$stamp.counts"
	id=$(run_id | sha256sum)
	if [ "$(head -n 1 "$stamp" 2>/dev/null)" = "$id" ]; then
		line=$(sed -n 2p "$stamp")
		text='not changed since'
	else
		rm -f "$stamp"
		ROWS=$row STRESS=y PLAN=stress-$DEBUG-$row \
			"$ROOT/scripts/test.sh" >"$log" 2>&1 </dev/null || verdict=FAILED
		line=$(grep -E '^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' "$log" | tail -n 1 || true)
		line=${line:-0 passed, 1 failed, 0 skipped}
		if [ "$verdict" = ok ]; then
			printf '%s\n' "$id" "$line" >"$stamp"
		else
			text="see ${log#"$ROOT/"}"
		fi
	fi
	read -r p _ f _ s _ <<<"$line"
	[ "$verdict" = ok ] || [ "$f" -gt 0 ] || f=1
	operations=0
	[ "$verdict" != ok ] || [ "${TESTS:-*}" != '*' ] || operations=$(operations)
	echo "$p $f $s $operations" >"$stamp.counts"
	{
		printf '%-14s%-5s%-8s%6s%8s%8s%8s  %s\n' "$DEBUG" "$row" "$verdict" \
			$((SECONDS - start)) "$p" "$f" "$s" "$text"
		[ "$verdict" = ok ] || grep -E '^(FAILED|error: )|^The kernel complained' -A 6 "$log" |
			head -n 40 | sed 's/^/    /'
	} >"$stamp.line"
}

# variants DEBUG: the kernels that its rows need
variants() {
	local DEBUG=$1 i

	for ((i = 0; i < ${#rows}; i++)); do
		row_variant "${rows:i:1}"
	done | sort -u
}

selected=()
while read -r DEBUG checks; do
	# shellcheck disable=SC2053 # KERNELS is a pattern
	[[ -n $DEBUG && $DEBUG = ${KERNELS:-*} ]] || continue
	selected+=("$DEBUG")
	say "$DEBUG: $checks"
done <<<"$kernels"
[ ${#selected[@]} -gt 0 ] || die "no kernel matches ${KERNELS:-*}"
variants "${selected[0]}" | xargs "$ROOT/scripts/kernel.sh"

passed=0 failed=0 skipped=0 operations=0
printf '%-14s%-5s%-8s%6s%8s%8s%8s\n' kernel row result s passed failed skipped
for ((k = 0; k < ${#selected[@]}; k++)); do
	export DEBUG=${selected[k]}
	[ "$k" = 0 ] || wait_meanwhile || die "cannot build it, see above"
	if [ $((k + 1)) -lt ${#selected[@]} ]; then
		mapfile -t next < <(variants "${selected[k + 1]}")
		meanwhile stress-build nice -n 19 "$ROOT/scripts/kernel.sh" "${next[@]}"
	fi
	# For none of the rows to have anything left to build
	ROWS=$rows STRESS=y BUILD_ONLY=y "$ROOT/scripts/test.sh" >"$LOG/stress-tests.log" 2>&1 ||
		die "cannot build the tests, see ${LOG#"$ROOT/"}/stress-tests.log"
	mapfile -t each < <(fold -w 1 <<<"$rows")
	side_by_side run "${each[@]}" || true	# what failed is counted
	for row in "${each[@]}"; do
		cat "$STAMPS/$DEBUG-$row.line"
		read -r p f s o <"$STAMPS/$DEBUG-$row.counts"
		passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
		operations=$((operations + o))
	done
done
[ $((passed + failed)) -gt 0 ] || die "no row of $rows was run"
[ -e "$SRC/tools/testing/selftests/kvm/guest_memfd_fuzz_test.c" ] ||
	say "the tree has no guest_memfd_fuzz_test, which was not run"
say "fuzzer: $operations operations; took $SECONDS s"
say "$passed passed, $failed failed, $skipped skipped"
[ "$failed" = 0 ] || die "see ${LOG#"$ROOT/"}/stress-*.log, and the logs that they name"

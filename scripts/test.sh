#!/bin/bash
# Run the KUnit tests, and then the tests of vm/tests in the VM, in every
# configuration that the tree has.
#
# ROWS=13 runs only those rows, TESTS='guest_memfd*' only programs that match,
# and no KUnit tests.
# DEBUG=kasan-fault runs them with the kernel that has these fragments of config/.
# STRESS=y adds what "make stress" runs.  PLAN= names the run, and its logs.

# shellcheck source=scripts/common.sh
. "$(dirname "$0")/common.sh"

rows=${ROWS:-1234}

if [ "$(tree_rows)" != 1234 ]; then
	rows=$(tree_rows)
	say "this tree does not have all options yet: only rows $rows can run"
fi

# runs KIND: whether lines of this kind are for the kernel that runs the tests
runs() {
	case $1 in
	test) return 0 ;;
	test+*) [[ -${DEBUG:-}- = *-${1#test+}-* ]] ;;
	stress) [ -n "${STRESS:-}" ] ;;
	*) return 1 ;;
	esac
}

# selected: the tests to run, as lines ROWS SECONDS PROGRAM ARGUMENTS...
selected() {
	local kind at seconds rest

	while read -r kind at seconds rest; do
		runs "$kind" || continue
		# shellcheck disable=SC2053 # TESTS is a pattern
		[[ ${rest%% *} = ${TESTS:-*} ]] || continue
		# What is for stress only may come later; stress.sh says so
		[ "$kind" != stress ] ||
			[ -e "$SRC/tools/testing/selftests/kvm/${rest%% *}.c" ] || continue
		echo "$at $seconds $rest"
	done <"$ROOT/vm/tests"
}

# log_checks ROW: the lines of a plan that look at the kernel's log
log_checks() {
	local kind at count text

	while read -r kind at count text; do
		[[ $kind = log && $at = *$1* && -z ${TESTS:-} ]] || continue
		# init writes the name to the log, i.e. it can't have the text
		# shellcheck disable=SC2016 # the shell in the VM expands this
		printf 'run\trow %s: log\t10\tn=$(dmesg | grep -c "%s"); echo "%s: wanted %s messages, got $n"; [ "$n" = %s ]\n' \
			"$1" "$text" "$text" "$count" "$count"
	done <"$ROOT/vm/tests"
}

# counters: the line of a plan that writes to the report how often the kernel ran
# which lines, for coverage.sh
counters() {
	# shellcheck disable=SC2016 # the shell in the VM expands this
	[[ -${DEBUG:-}- != *-gcov-* ]] || printf 'run\tgcov\t600\t%s\n' \
		'find /sys/kernel/debug/gcov -name "*.gcda" | while read -r f; do echo "gcda ${f#/sys/kernel/debug/gcov/}"; gzip -c <"$f" | base64; done'
}

# programs: those to run, without arguments
programs() {
	selected | cut -d' ' -f3 | sort -u
}

# A failure is not to keep the others from being run
counted='0 0 0' kunit_failed=0
if [ -z "${TESTS:-}" ]; then
	rm -f "$OUT/kunit/counted"
	"$ROOT/scripts/kunit.sh" || kunit_failed=1
	counted=$(cat "$OUT/kunit/counted" 2>/dev/null || echo "0 $kunit_failed 0")
fi

programs | sed '\,^base/,d' | xargs -r "$ROOT/scripts/selftests.sh"
programs | sed -n 's,^base/,,p' | xargs -r "$ROOT/scripts/unpatched.sh"

plan=$OUT/vm/${PLAN:-test}
factor=$(time_factor "${DEBUG:-}")
mkdir -p "$OUT/vm"
{
	for ((i = 0; i < ${#rows}; i++)); do
		row=${rows:i:1}
		row_plan "$row"
		log_checks "$row"
		selected | while read -r at seconds command; do
			[[ $at = *$row* ]] || continue
			printf 'run\trow %s: %s\t%d\t/tests/%s\n' \
				"$row" "$command" $((seconds * factor)) "$command"
		done
	done
	counters
} >"$plan"

status=0
COUNTED=$counted "$ROOT/scripts/vm.sh" -p "$plan" || status=$?
[ "$kunit_failed" = 0 ] || die "KUnit failed, see above"
exit "$status"

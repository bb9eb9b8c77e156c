#!/bin/bash
# Run the tests of vm/tests in the VM, in every configuration that the tree has, and
# those of row 1 again, with a kernel that checks itself and runs the KUnit tests.
#
# ROWS=13 runs only those rows, TESTS='guest_memfd*' only programs that match.  Both
# do without the other kernel.  So does DEBUG=kasan-fault, which runs the tests with
# the kernel that has these fragments of config/.
# STRESS=y adds what "make stress" runs, STOP=y ends the run at the first failure,
# BUILD_ONLY=y just builds the programs.
# PLAN= names the run, and its logs.  FIRST= is what the VM runs first, FILES= a
# directory of what it has besides.

# shellcheck source=scripts/common.sh
. "$(dirname "$0")/common.sh"

rows=${ROWS:-1234}
SELF_CHECKING=debug-fault
# About half of the time that the tests take with that
OTHERS='guest_memfd_conversion_limits_test|guest_memfd_conversion_races_test'

if [ "$(tree_rows)" != 1234 ]; then
	rows=$(tree_rows)
	say "this tree does not have all options yet: only rows $rows can run"
fi

# for_kernel KIND+FRAGMENT: whether the kernel that runs the tests has the fragment
for_kernel() {
	[[ $1 != *+* || -${DEBUG:-}- = *-${1#*+}-* ]]
}

# runs KIND: whether programs of this kind are for the kernel that runs the tests
runs() {
	case $1 in
	test | test+*) for_kernel "$1" ;;
	module) [ -z "${DEBUG:-}" ] ;;
	long) [[ -z ${DEBUG:-} || -n ${STRESS:-} ]] ;;
	stress) [ -n "${STRESS:-}" ] ;;
	*) return 1 ;;
	esac
}

# selected: the tests to run, as lines ROWS SECONDS PROGRAM ARGUMENTS..., where the
# program may be a module: NAME.ko
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

# how ROW COMMAND: what the VM's shell does for it
how() {
	case $2 in
	*.ko) echo "insmod /modules/$(row_variant "$1")/$2 && rmmod ${2%.ko}" ;;
	*) echo "/tests/$2" ;;
	esac
}

# log_checks ROW: the lines of a plan that look at the kernel's log
log_checks() {
	local kind at count text

	while read -r kind at count text; do
		[[ ${kind%+*} = log && $at = *$1* && -z ${TESTS:-} ]] || continue
		for_kernel "$kind" || continue
		# init writes the name to the log, i.e. it can't have the text
		# shellcheck disable=SC2016 # the shell in the VM expands this
		printf 'run\trow %s: log\t%d\tn=$(dmesg | grep -c "%s"); echo "%s: wanted %s messages, got $n"; [ "$n" = %s ]\n' \
			"$1" $((10 * ${SLOW:-1})) "$text" "$text" "$count" "$count"
	done <"$ROOT/vm/tests"
}

# counters: the line of a plan that writes to the report how often the kernel ran
# which lines, for coverage.sh
counters() {
	# shellcheck disable=SC2016 # the shell in the VM expands this
	[[ -${DEBUG:-}- != *-gcov-* ]] || printf 'run\tgcov\t%d\t%s\n' $((600 * ${SLOW:-1})) \
		'find /sys/kernel/debug/gcov -name "*.gcda" | while read -r f; do echo "gcda ${f#/sys/kernel/debug/gcov/}"; gzip -c <"$f" | base64; done'
}

# checking NUMBER PATTERN [COMMAND...]: the tests of row 1 that match, with the kernel
# that checks itself, by way of a command
checking() {
	DEBUG=$SELF_CHECKING ROWS=1 TESTS=$2 PLAN=test-$SELF_CHECKING-$1 "${@:3}" "$0"
}

# programs: those to run, without arguments
programs() {
	selected | cut -d' ' -f3 | sed '/\.ko$/d' | sort -u
}

build_programs() {
	programs | sed '\,^base/,d' | xargs -r "$ROOT/scripts/selftests.sh"
	programs | sed -n 's,^base/,,p' | xargs -r "$ROOT/scripts/unpatched.sh"
}

build_programs
[ -z "${BUILD_ONLY:-}" ] || exit 0

plan=$OUT/vm/${PLAN:-test}
factor=$(time_factor "${DEBUG:-}")
mkdir -p "$OUT/vm"
{
	[ -z "${STOP:-}" ] || echo stop
	[ -z "${FIRST:-}" ] || printf 'run\tfirst\t%d\t%s\n' $((60 * ${SLOW:-1})) "$FIRST"
	for ((i = 0; i < ${#rows}; i++)); do
		row=${rows:i:1}
		row_plan "$row"
		log_checks "$row"
		selected | while read -r at seconds command; do
			[[ $at = *$row* ]] || continue
			printf 'run\trow %s: %s\t%d\t%s\n' \
				"$row" "$command" $((seconds * factor)) "$(how "$row" "$command")"
		done
	done
	counters
} >"$plan"

if [ -n "${DEBUG:-}${ROWS:-}${TESTS:-}" ]; then
	exec "$ROOT/scripts/vm.sh" -p "$plan" ${FILES:+-d "$FILES"}
fi

# All of it: one part that fails is not to keep the others from being run.
parts=$OUT/vm/parts
rm -rf "$parts"
mkdir "$parts"
status=0
if [[ $rows = *1* ]]; then
	say "building kernel-n-$SELF_CHECKING meanwhile"
	meanwhile test-build nice -n 19 "$ROOT/scripts/kernel.sh" "n-$SELF_CHECKING"
fi
COUNT_TO=$parts/plain "$ROOT/scripts/vm.sh" -p "$plan" || status=1
if [[ $rows = *1* ]]; then
	wait_meanwhile || status=1
	# For neither of the two below to have anything left to build
	DEBUG=$SELF_CHECKING build_programs
	say "Row 1 again, with kernel-n-$SELF_CHECKING, in two VMs:"
	COUNT_TO=$parts/others checking 2 "@($OTHERS)" meanwhile test-others
	COUNT_TO=$parts/checking checking 1 "!($OTHERS)" || status=1
	wait_meanwhile || status=1
	COUNT_TO=$parts/kunit "$ROOT/scripts/kunit.sh" \
		-l "$LOG/vm-test-$SELF_CHECKING-1.console.log" || status=1
fi
for part in plain checking others kunit; do
	# A part that did not get so far as to count
	cat "$parts/$part" 2>/dev/null || [ "$status" = 0 ] || echo '0 1 0'
done | awk '
	{ passed += $1; failed += $2; skipped += $3 }
	END { printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped }'
[ "$status" = 0 ] || die "not all passed, see above"

#!/bin/bash
# Judge the report that vm/init.c writes, as it arrives on standard input.
#
# usage: scripts/judge.sh results|output
#
# Prints one line for each program, and what a failed one said (results), or
# everything that programs say (output).  Sub-tests that programs report in TAP
# are counted one by one; with COUNT_TO=FILE, for the caller to add.  Succeeds only
# if the report is complete, nothing failed, and all skips are among those that
# vm/tests expects.

set -euo pipefail

show=$1
rules=$(dirname "$0")/../vm/tests
planned=0 seen=0 complete=''
passed=0 failed=0 skipped=0
running='' details=()

# expected_skip ROW PROGRAM SUB-TEST
expected_skip() {
	awk -v row="$1" -v program="$2" -v sub_test="$3" '
		$1 == "skip" && index($2, row) && $3 == program && ($4 == "*" || $4 == sub_test) {
			found = 1
		}
		END { exit !found }' "$rules"
}

start() {
	running=$1
	details=() sub_planned='' sub_passed=0 sub_failed=0 sub_skipped=() sub_seen=0
}

# A line that a program wrote
output() {
	[ "$show" = results ] || printf '%s\n' "$1"
	details+=("$1")
	if [[ $1 =~ ^1\.\.([0-9]+) ]]; then
		sub_planned=${BASH_REMATCH[1]}
	elif [[ $1 =~ ^(not )?ok\ [0-9]+\ (-\ )?(.*) ]]; then
		sub_seen=$((sub_seen + 1))
		if [ -n "${BASH_REMATCH[1]}" ]; then
			sub_failed=$((sub_failed + 1))
		elif [[ ${BASH_REMATCH[3]} = *'# SKIP'* ]]; then
			sub_skipped+=("${BASH_REMATCH[3]%% *}")
		else
			sub_passed=$((sub_passed + 1))
		fi
	fi
}

# verdict WORD NAME TEXT
verdict() {
	if [ "$show" = results ] || [ "$1" = FAILED ]; then
		printf '%-8s%s (%s)\n' "$1" "$2" "$3"
	fi
	if [ "$1" = FAILED ] && [ "$show" = results ] && [ ${#details[@]} -gt 0 ]; then
		printf '        | %.300s\n' "${details[@]}" | tail -n 50
	fi
}

# The result of a program, or of a step of init's own, which counts if it fails
result() {
	local name text bad='' row program sub_test

	[[ $1 =~ ^(not\ )?ok\ ([0-9]+)\ -\ (.*)\ #\ (.*)$ ]] || return 1
	bad=${BASH_REMATCH[1]} name=${BASH_REMATCH[3]} text=${BASH_REMATCH[4]}
	seen=$((seen + 1))
	[ "${BASH_REMATCH[2]}" = "$seen" ] || bad="out of order, "
	if [ -z "$running" ]; then
		[ -z "$bad" ] || failed=$((failed + 1))
		[ -z "$bad" ] || verdict FAILED "$name" "$text"
		details=()
		return
	fi

	row=${name#row } row=${row%%:*}
	program=${name#*: } program=${program%% *}
	if [[ $text = 'SKIP '* ]] && [ "$sub_seen" = 0 ]; then
		text=${text#SKIP }
		sub_skipped=('*')
	elif [ -n "$sub_planned" ] && [ "$sub_planned" != "$sub_seen" ]; then
		bad=y text="planned $sub_planned sub-tests and reported $sub_seen, $text"
	elif [ "$sub_planned" = 0 ]; then
		bad=y text="planned no sub-tests, $text"
	elif [ "$sub_seen" -gt 0 ]; then
		text="$sub_seen sub-tests, $text"
	elif [ -z "$bad" ]; then
		sub_passed=1
	fi
	for sub_test in "${sub_skipped[@]}"; do
		if expected_skip "$row" "$program" "$sub_test"; then
			skipped=$((skipped + 1))
		else
			sub_failed=$((sub_failed + 1))
			text="unexpected skip of $sub_test, $text"
		fi
	done
	[ -z "$bad" ] || [ "$sub_failed" -gt 0 ] || sub_failed=1
	passed=$((passed + sub_passed)) failed=$((failed + sub_failed))
	if [ "$sub_failed" -gt 0 ]; then
		verdict FAILED "$name" "$text"
	elif [ "$sub_passed" -gt 0 ]; then
		verdict ok "$name" "$text"
	else
		verdict skipped "$name" "$text"
	fi
	running='' details=()
}

while IFS= read -r line; do
	case $line in
	'TAP version 13') ;;
	1..*) planned=${line#1..} ;;
	'#start '*) start "${line#\#start }" ;;
	'#end') complete=y ;;
	'# '*) output "${line#\# }" ;;
	'#'*) details+=("${line#\#}") ;;
	*) result "$line" || { printf '%s\n' "$line"; failed=$((failed + 1)); } ;;
	esac
done

if [ -z "$complete" ] || [ "$planned" != "$seen" ]; then
	failed=$((failed + 1))
	[ -z "$running" ] || verdict FAILED "$running" 'the VM stopped'
	printf 'The report is not complete: %s results of %s.\n' "$seen" "$planned"
fi
if [ -n "${COUNT_TO:-}" ]; then
	echo "$passed $failed $skipped" >"$COUNT_TO"
elif [ "$show" != output ] || [ "$failed" != 0 ]; then
	echo "$passed passed, $failed failed, $skipped skipped"
fi
[ "$failed" = 0 ]

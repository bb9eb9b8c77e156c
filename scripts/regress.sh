#!/bin/bash
# Run all KVM selftests that the base has, as it has them, on a kernel of the base and
# on one with the series in each row of vm/tests, and compare: nothing that passes on
# the base may fail with the series, and nothing be skipped that vm/tests doesn't expect.
#
# The base's tests know of private memory that is tracked per VM only, as in row 3.  In
# the other rows, those that the series adapts are run as it has them.
#
#   scripts/regress.sh	  run them; ends with a table, which is in build/regress
#   scripts/regress.sh -d	  copy the last one to docs/selftests.md
#
# A test that failed in a row but not on the base is repeated on both, as emulation
# makes some fail once in a while.  What passed on the base each time and failed in the
# row more than once is a failure.  A row is run again only if something changed.
#
# ROWS=13 runs only these rows.  TESTS='x86/*' runs only programs that match.

# shellcheck source=scripts/common.sh
. "$(dirname "$0")/common.sh"

REGRESS=$OUT/regress
DOC=$ROOT/docs/selftests.md
SECONDS_LIMIT=$((${SECONDS_LIMIT:-300} * ${SLOW:-1}))
REPETITIONS=3
mapfile -t rows < <(fold -w 1 <<<"${ROWS:-1234}")
mkdir -p "$REGRESS" "$OUT/vm"

# list: the programs and scripts that the base's Makefile has for x86
list() {
	local tests=$BUILD/tree-unpatched/tests name

	# shellcheck disable=SC2016 # make expands this
	make -s -C "$BUILD/unpatched/tools/testing/selftests/kvm" OUTPUT="$tests" \
		--eval='list:; @printf "%s\n" $(TEST_GEN_PROGS) $(TEST_PROGS)' list |
		sed "s,^$tests/,," | sort | while read -r name; do
		# shellcheck disable=SC2053 # TESTS is a pattern
		[[ $name != ${TESTS:-*} ]] || echo "$name"
	done
}

# adapted: programs of the base that the series changes
adapted() {
	git -C "$SRC" diff --name-only --diff-filter=M refs/tags/base HEAD -- \
		tools/testing/selftests/kvm | sed -n 's,^tools/testing/selftests/kvm/\(.*_test\)\.c$,\1,p'
}

# arguments PROGRAM: what makes it end in time under emulation, if it has options for that
arguments() {
	case $1 in
	access_tracking_perf_test) echo -b 64M -v 1 ;;
	dirty_log_perf_test) echo -b 256M ;;
	memslot_perf_test) echo -l 1 -s 256 -t 100 ;;
	mmu_stress_test) echo -m 1 -s 1 ;;
	esac
}

# limit PROGRAM: seconds.  One waits for 100000 migrations between CPUs, no matter how
# long that takes, and one unmaps 32768 pages, one at a time.
limit() {
	case $1 in
	memslot_perf_test | rseq_test) echo $((4 * SECONDS_LIMIT)) ;;
	*) echo "$SECONDS_LIMIT" ;;
	esac
}

# command_line PROGRAM: how the VM runs it.  The one script runs a program of its own name.
command_line() {
	case $1 in
	*.sh) echo ": $prefix/${1%.sh}; sh $prefix/$1" ;;
	*)
		if [[ $where != [124] ]] || ! grep -qxF "$1" "$REGRESS/adapted"; then
			echo "$prefix/$1 $(arguments "$1")"
		else
			echo "/tests/$1"
		fi
		;;
	esac
}

# configuration WHERE: sets what it takes to run programs there, where base is a kernel
# without the series, and anything else a row
configuration() {
	where=$1
	case $where in
	base) tree=build/unpatched out=$BUILD/tree-unpatched prefix=/tests kvm=$'kvm\tbase\ty\t-' ;;
	*) tree=${TREE:-} out=$OUT prefix=/tests/base kvm=$(row_plan "$where") ;;
	esac
	plan=$out/vm/regress-$where
	tap=$out/log/vm-regress-$where.tap
}

# results TAP: lines PROGRAM SUB-TEST pass|fail|skip, separated by tabs, where the
# program as a whole is sub-test -
results() {
	awk -F '\t' -v OFS='\t' '
		function verdict(line) {
			return line ~ /^not ok/ ? "fail" : line ~ /# SKIP/ ? "skip" : "pass"
		}
		/^#start / { program = substr($0, 8); n = 0; next }
		/^# (not )?ok [0-9]+ / && program != "" {
			line = substr($0, 3)
			name = line
			sub(/^(not )?ok [0-9]+ (- )?/, "", name)
			sub(/ *# SKIP.*/, "", name)
			gsub(/[0-9a-fx]*[0-9][0-9a-fx]*/, "N", name)
			print program, ++n " " name, verdict(line)
			next
		}
		/^(not )?ok [0-9]+ - / && program != "" {
			print program, "-", verdict($0)
			program = ""
		}
		END { if (program != "") print program, "-", "stop" }' "$1"
}

# vm PROGRAM...: run them.  One that stops the VM is not to keep others from being run.
vm() {
	local todo=("$@") last i

	mkdir -p "$out/vm"
	: >"$REGRESS/$where.new"
	while [ ${#todo[@]} -gt 0 ]; do
		{
			printf '%s\n' "$kvm"
			for i in "${todo[@]}"; do
				printf 'run\t%s\t%d\t%s\n' "$i" "$(limit "$i")" "$(command_line "$i")"
			done
		} >"$plan"
		rm -f "$tap"
		TREE=$tree "$ROOT/scripts/vm.sh" -p "$plan" || true
		cat "$tap" >>"$REGRESS/$where.tap"
		results "$tap" >"$REGRESS/$where.part"
		cat "$REGRESS/$where.part" >>"$REGRESS/$where.new"
		last=$(tail -n 1 "$REGRESS/$where.part" | cut -f1)
		[ -n "$last" ] || { say "$where: the VM ran nothing, see $tap"; return 1; }
		for i in "${!todo[@]}"; do
			[ "${todo[i]}" != "$last" ] || break
		done
		todo=("${todo[@]:i+1}")
	done
}

# run WHERE PROGRAM...: run all of them, unless nothing changed since
run() {
	local id

	configuration "$1"
	shift
	id=$({
		[ "$where" = base ] || cat "$out/kernel-$(row_variant "$where")/build-id"
		[[ $where != [124] ]] || selftests_id
		cat "$BUILD/tree-unpatched/kernel-y/build-id"
		cd "$ROOT" && sha256sum vm/{init.c,problems} scripts/{regress,vm,judge}.sh
		printf '%s\n' "$SECONDS_LIMIT" "$@"
	} | sha256sum)
	if [ "$(cat "$REGRESS/$where.id" 2>/dev/null)" != "$id" ]; then
		rm -f "$REGRESS/$where".{id,tap}
		vm "$@" || return
		mv "$REGRESS/$where.new" "$REGRESS/$where"
		echo "$id" >"$REGRESS/$where.id"
	fi
}

# compare ROW: lines PROGRAM, SUB-TEST, how it ended on the base and in the row, for
# what the base always passes and the row does not.  Of a program that was repeated,
# that is what the row does not pass more than once.
compare() {
	awk -F '\t' -v OFS='\t' -v row="$1" '
		FILENAME ~ /tests$/ {
			split($0, word, " +")
			if (word[1] == "skip" && index(word[2], row))
				expected[word[3]] = 1
			next
		}
		{ key = $1 FS $2 }
		FILENAME ~ /base[^\/]*$/ {
			if ($3 != "pass") bad[key] = $3
			seen[key] = 1
			next
		}
		{ runs[$1] += $2 == "-"; here[key] = 1 }
		$3 == "skip" { skips[key]++ }
		$3 != "pass" { other[key] = $3; others[key]++ }
		$2 == "-" && $3 == "skip" { skipped[$1] = 1 }
		END {
			for (key in seen) {
				split(key, part, FS)
				program = part[1]
				if (key in bad || !(program in runs) || expected[program] &&
				    (skipped[program] || skips[key]))
					continue
				if (!(key in here))
					print key, "pass", skipped[program] ? "skip" : "missing"
				else if (others[key] > (runs[program] > 1))
					print key, "pass", other[key]
			}
		}' "$ROOT/vm/tests" "$REGRESS"/base{,.again} "$REGRESS/$1"{,.again} | sort
}

# table: how each program ended everywhere
table() {
	(cd "$REGRESS" && awk -F '\t' '
		FILENAME ~ /again$/ { repeated[substr(FILENAME, 1, 1), $1] = 1; next }
		FNR == 1 {
			place[++n] = FILENAME
			heading[n] = FILENAME == "base" ? "base" : "row " FILENAME
		}
		!($1 in known) { known[$1] = 1; program[++m] = $1 }
		$2 == "-" { whole[FILENAME, $1] = $3; next }
		{ number[FILENAME, $1]++; count[FILENAME, $1, $3]++ }
		function cell(at, name,  k, f, s) {
			k = number[at, name] + 0
			f = count[at, name, "fail"] + 0
			s = count[at, name, "skip"] + 0
			if (!((at, name) in whole))
				return "-"
			if (whole[at, name] == "stop")
				return "VM stopped"
			if (whole[at, name] == "skip")
				return "skipped"
			if (whole[at, name] == "pass" && !f)
				return s == k && k ? "skipped" : "ok" (k > 1 ? " " k - s : "")
			return "fails" (f && k > 1 ? " " f "/" k : "") ((at, name) in repeated ? "*" : "")
		}
		END {
			for (j = 0; j <= m; j++) {
				line = sprintf("%-44s", j ? program[j] : "program")
				for (i = 1; i <= n; i++)
					line = line sprintf("%-11s", j ? cell(place[i], program[j]) : heading[i])
				sub(/ +$/, "", line)
				print line
			}
		}' "${rows[@]/%/.again}" base "${rows[@]}")
}

# count FAILED: passed, failed, skipped.  What else fails does so on the base, too, or
# not when repeated.
count() {
	(cd "$REGRESS" && awk -F '\t' -v failed="$1" '
		$2 == "-" && FILENAME SUBSEP $1 in number { next }
		{
			number[FILENAME, $1]++
			passed += $3 == "pass"
			skipped += $3 == "skip"
			other += $3 != "pass" && $3 != "skip"
		}
		END {
			printf "%d did not pass, but neither do they on the base, or passed when repeated\n",
				other > failed ? other - failed : 0
			printf "%d passed, %d failed, %d skipped\n", passed, failed, skipped
		}' "${rows[@]}")
}

# document: what docs/selftests.md is
document() {
	cat <<-EOT
		# All KVM selftests of the base, with and without the series

		The programs are those of Linux $(release refs/tags/base), built from it without the series. They ran
		on a kernel of the base (VM_MEMORY_ATTRIBUTES is always on there) and on one with
		the series in each row of the [support matrix](../README.md#support-matrix), under
		$(qemu-system-x86_64 --version | sed -n '1s/ (.*//p') (${ACCEL:-$(sed -n 2p "$OUT/vm/accel")}, SVM), in a VM with 2 CPUs and 4 GiB, at most
		$(limit each) s each ($(limit rseq_test) s for memslot_perf_test and rseq_test).
		\`make regress\` repeats that. In rows 1, 2 and 4 these are as the series adapts them, as the
		base's know of private memory that is tracked per VM only: $(paste -sd ' ' "$REGRESS/adapted").

		What fails or is skipped on the base, too, is for want of the hardware, or because
		of what the emulation does or how slow it is. "fails 1/20" is one of 20 sub-tests, "ok 20" all of them.
		What failed in a row and not on the base was repeated $REPETITIONS times on both; "*" marks what passed then.

		\`\`\`
		$(cat "$REGRESS/complete")
		\`\`\`
	EOT
}

if [ "${1:-}" = -d ]; then
	[ -s "$REGRESS/complete" ] || die "no run of all tests in all rows has passed; run: make regress"
	document >"$DOC"
	exit
fi
[ $# = 0 ] || { usage >&2; exit 2; }

"$ROOT/scripts/unpatched.sh"
mapfile -t programs < <(list)
[ ${#programs[@]} -gt 0 ] || die "the base has no selftest that matches ${TESTS:-*}"
"$ROOT/scripts/unpatched.sh" "${programs[@]%.sh}"
for program in "${programs[@]}"; do
	[[ $program != *.sh ]] || cp "$BUILD/unpatched/tools/testing/selftests/kvm/$program" \
		"$BUILD/tree-unpatched/tests/$program"
done
TREE=build/unpatched "$ROOT/scripts/kernel.sh" y
adapted >"$REGRESS/adapted"
xargs "$ROOT/scripts/selftests.sh" <"$REGRESS/adapted"

# run_all WHERE
run_all() {
	run "$1" "${programs[@]}" >"$LOG/regress-$1.log" 2>&1 || die "see ${LOG#"$ROOT/"}/regress-$1.log"
	say "$1: run after $SECONDS s"
}

say "running ${#programs[@]} programs on the base and in rows ${rows[*]}: see ${LOG#"$ROOT"/}/regress-*.log"
side_by_side run_all base "${rows[@]}" || die "not all of it was run"

nr_failed=0
: >"$REGRESS/base.again"
for row in "${rows[@]}"; do
	: >"$REGRESS/$row.again"
done
for row in "${rows[@]}"; do
	mapfile -t again < <(compare "$row" | awk -F '\t' '$4 != "skip" { print $1 }' | uniq)
	[ ${#again[@]} -gt 0 ] || continue
	say "row $row: something failed that does not on the base; trying again: ${again[*]}"
	for ((i = 0; i < REPETITIONS; i++)); do
		for where in base "$row"; do
			configuration "$where"
			vm "${again[@]}" || die "see above"
			cat "$REGRESS/$where.new" >>"$REGRESS/$where.again"
		done
	done
done
for row in "${rows[@]}"; do
	compare "$row" >"$REGRESS/$row.worse"
	[ ! -s "$REGRESS/$row.worse" ] || sed "s/^/worse than the base, in row $row: /" "$REGRESS/$row.worse"
	nr_failed=$((nr_failed + $(wc -l <"$REGRESS/$row.worse")))
done
rm -f "$REGRESS/complete"
table >"$REGRESS/table"
cat "$REGRESS/table"
[ "$nr_failed" != 0 ] || [ -n "${ROWS:-}${TESTS:-}" ] || cp "$REGRESS/table" "$REGRESS/complete"
say "took $SECONDS s"
count "$nr_failed"
[ "$nr_failed" = 0 ] || die "the series makes something worse, see above and ${LOG#"$ROOT/"}/vm-regress-*"

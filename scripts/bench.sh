#!/bin/bash
# Measure what conversion costs: the base's per-VM way, the series' per-VM way
# (row 3 of vm/tests), and in place (row 1), and compare.
#
#   scripts/bench.sh	  run the benchmark; ends with a table of ratios and fails
#			  if a target is not met; results are in build/bench
#   scripts/bench.sh -d	  copy the last results to docs/bench
#
# The unit is instructions: the VM has one CPU, and time in it is how many that
# executed.  So the host and its load do not matter, and runs are comparable.

# shellcheck source=scripts/common.sh
. "$(dirname "$0")/common.sh"

PROGRAM=guest_memfd_conversion_perf_test
REPETITIONS=3
SECONDS_LIMIT=$((1800 * ${SLOW:-1}))
BENCH=$OUT/bench

# vm TREE ROW OUTPUT: run the benchmark in a VM.  Which page tables neighbours
# share must not be left to chance: hence no random addresses.
vm() {
	TREE=$1 "$ROOT/scripts/vm.sh" -1 -r "$2" -t "$SECONDS_LIMIT" -a "$OUT/tests/$PROGRAM" \
		"echo 0 >/proc/sys/kernel/randomize_va_space; /bin/$PROGRAM -r $REPETITIONS" >"$3" 2>&1 || {
		tail -n 20 "$3"
		return 1
	}
}

# The base needs a kernel of its own; it does not disturb the others.
measure() {
	local base status=0

	vm build/unpatched 3 "$BENCH/base.out" &
	base=$!
	vm "${TREE:-}" 3 "$BENCH/per-vm.out" && vm "${TREE:-}" 1 "$BENCH/in-place.out" || status=$?
	wait "$base" && return "$status"
}

# csv: all results, with the name of the configuration in front
csv() {
	local config

	sed -n 's/^# mode,/configuration,mode,/p' "$BENCH/in-place.out"
	for config in base per-vm in-place; do
		grep -E '^(per-vm|in-place),' "$BENCH/$config.out" | sed "s/^/$config,/"
	done
}

# json: what csv wrote
json() {
	awk -F, '
		NR == 1 { for (i = 1; i <= NF; i++) name[i] = $i; printf "["; next }
		{
			printf "%s\n  {", NR == 2 ? "" : ","
			for (i = 1; i <= NF; i++)
				printf "%s\"%s\": %s", i == 1 ? "" : ", ", name[i],
					$i ~ /^[0-9]+$/ ? $i : "\"" $i "\""
			printf "}"
		}
		END { printf "\n]\n" }'
}

# series CONFIGURATION CASE STATE DIRECTION X: columns for gnuplot; an empty
# STATE stands for any that has runs, which is the pattern of 50%
series() {
	awk -F, -v config="$1" -v name="$2" -v state="$3" -v direction="$4" -v x="$5" '
		$1 == config && $3 == name && $5 == direction &&
		(state == "" ? $4 ~ /^runs|^alternate/ : $4 == state) { print $x, $10 }
	' "$BENCH/results.csv" | sort -n
}

# curve NAME TITLE ARGUMENT...: append a curve to the plot
curve() {
	local name=$1 title=$2

	shift 2
	series "$@" >"$BENCH/plot/$name"
	[ -s "$BENCH/plot/$name" ] || return 0
	plot+="${plot:+, }'$BENCH/plot/$name' with linespoints title '$title'"
}

# draw NAME TITLE LABEL-OF-X: write the plot
draw() {
	gnuplot <<-EOT
		set terminal svg size 900,600 background 'white'
		set output '$BENCH/$1.svg'
		set title '$2'
		set xlabel '$3'
		set ylabel 'instructions'
		set logscale x 2
		set logscale y 10
		set format x '%.0b %B'
		set format y '10^{%L}'
		set grid
		set key outside below
		plot $plot
	EOT
	plot=''
}

plots() {
	rm -rf "$BENCH/plot"
	mkdir "$BENCH/plot"
	curve a 'base, unpopulated' base convert unpopulated to-private 6
	curve b 'base, host-mapped' base convert host-mapped to-private 6
	curve c 'base, guest-mapped' base convert guest-mapped to-private 6
	curve d 'in place, unpopulated' in-place convert unpopulated to-private 6
	curve e 'in place, host-mapped' in-place convert host-mapped to-private 6
	curve f 'in place, guest-mapped' in-place convert guest-mapped to-private 6
	curve g 'madvise(DONTNEED) of shmem' in-place shmem-dontneed host-mapped - 6
	draw size 'Conversion to private' 'size of the range, bytes'

	curve h 'base, to private' base pattern '' to-private 8
	curve i 'base, to shared' base pattern '' to-shared 8
	curve j 'in place, to private (host-mapped)' in-place pattern '' to-private 8
	curve k 'in place, to shared' in-place pattern '' to-shared 8
	draw fragmentation 'Conversion of 1 GiB, half of which changes' \
		'number of sub-ranges that change'
}

# row NAME CASE STATE DIRECTION BYTES PARAMETER: medians, per configuration
medians() {
	awk -F, -v text="$1" -v name="$2" -v state="$3" -v direction="$4" -v bytes="$5" -v param="$6" '
		$3 == name && $4 == state && $5 == direction && $6 == bytes && $8 == param {
			v[$1] = $10
		}
		END { printf "| %s | %s | %s | %s |\n", text, v["base"], v["per-vm"], v["in-place"] }
	' "$BENCH/results.csv"
}

markdown() {
	local size bytes state direction

	cat <<-EOT
		# What conversion costs

		Written by \`make bench-docs\` from the results of \`make bench\`, which are in
		\`results.csv\`.

		| conditions | |
		| --- | --- |
		| unit | instructions; in the VM, time is how many its one CPU executed, clearing and copying memory counts 8 bytes each |
		| VM | $(sed -n 's/^version: //p' "$BENCH/conditions"), TCG, \`-icount shift=0,sleep=off\`, one CPU, 4 GiB, emulated SVM with nested paging |
		| kernel | Linux $(sed -n 's/^kernel: //p' "$BENCH/conditions"), \`config/\`, without debugging, $(sed -n 's/^compiler: //p' "$BENCH/conditions") |
		| base | without the series: \`KVM_SET_MEMORY_ATTRIBUTES\`, private guest_memfd, and anonymous memory for what is shared |
		| per VM | the series, row 3: likewise |
		| in place | the series, row 1 |
		| values | median of $REPETITIONS repetitions |

		## Targets

	EOT
	awk -v markdown=1 -f "$ROOT/scripts/bench.awk" "$BENCH/results.csv" || true
	cat <<-EOT

		## Cost against the size of the range

		![](size.svg)

		| | base | per VM | in place |
		| --- | --- | --- | --- |
	EOT
	for direction in to-private to-shared; do
		for state in unpopulated host-mapped populated guest-mapped; do
			[ "$direction,$state" != to-private,populated ] || continue
			[ "$direction,$state" != to-shared,host-mapped ] || continue
			while read -r size bytes; do
				medians "$direction, $state, $size" convert "$state" "$direction" "$bytes" 0
			done <<-EOT
				4K 4096
				2M 2097152
				64M 67108864
				1G 1073741824
			EOT
		done
	done
	cat <<-EOT

		## Cost against fragmentation

		![](fragmentation.svg)

		## Many processes, many memslots

		A range of 16 MiB that processes have mapped, and ranges that consist of
		memslots of 2 MiB each, not populated.

		| | base | per VM | in place |
		| --- | --- | --- | --- |
	EOT
	for size in 1 2 4 8 16; do
		medians "$size processes" processes host-mapped to-private 16777216 "$size"
	done
	for size in 2 8 32 128 512; do
		medians "$size memslots" memslots unpopulated to-private $((size * 2097152)) "$size"
	done
}

conditions() {
	echo "version: $(qemu-system-x86_64 --version | head -n 1)"
	echo "kernel: $(cat "$OUT/kernel-n/include/config/kernel.release")"
	echo "compiler: $(gcc --version | head -n 1)"
}

if [ "${1:-}" = -d ]; then
	[ -e "$BENCH/results.csv" ] || die "there are no results; run: make bench"
	mkdir -p "$ROOT/docs/bench"
	cp "$BENCH"/{results.csv,size.svg,fragmentation.svg} "$ROOT/docs/bench/"
	markdown >"$ROOT/docs/bench/results.md"
	exit
fi

"$ROOT/scripts/unpatched.sh"
TREE=build/unpatched "$ROOT/scripts/kernel.sh" y
"$ROOT/scripts/selftests.sh" "$PROGRAM"

mkdir -p "$BENCH"
rm -f "$BENCH"/*.*
step bench "run the benchmark in three VMs" measure
conditions >"$BENCH/conditions"
csv >"$BENCH/results.csv"
json <"$BENCH/results.csv" >"$BENCH/results.json"
plot='' && plots
say "results: ${BENCH#"$ROOT"/}/results.csv, .json; plots: size.svg, fragmentation.svg"
awk -f "$ROOT/scripts/bench.awk" "$BENCH/results.csv" ||
	die "not all targets are met"

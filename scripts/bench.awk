# The results of `make bench` against what conversion in place is meant to cost:
# a table for people, and the exit status says whether all targets were met.
#
# Input is results.csv.  With -v markdown=1 the table is one in Markdown.

BEGIN {
	FS = ","
	SMALL = 4096
	LARGE = 1024 * 1024 * 1024
	split("to-private to-shared", directions, " ")
}

FNR > 1 {
	value[$1, $3, $4, $5, $6, $8] = $10
	pages[$1, $3, $4, $5, $6, $8] = $7
}

# get(CONFIG, CASE, STATE, DIRECTION, BYTES, PARAMETER): the median
function get(config, name, state, direction, bytes, param,	key) {
	key = config SUBSEP name SUBSEP state SUBSEP direction SUBSEP bytes SUBSEP param
	if (!(key in value)) {
		missing = missing "  " config "," name "," state "," direction "," bytes "," param "\n"
		return 0
	}
	return value[key]
}

function max(a, b) {
	return a > b ? a : b
}

function min(a, b) {
	return a < b ? a : b
}

function ratio(a, b) {
	return b ? a / b : 0
}

function line(text, shown, target, verdict) {
	if (markdown)
		printf "| %s | %s | %s | %s |\n", text, shown, target, verdict
	else
		printf "  %-62s%12s  %-16s%s\n", text, shown, target, verdict
}

# row(TEXT, VALUE, FORMAT, "<=" or ">=" or "" if there is no target, LIMIT)
function row(text, val, fmt, op, limit,	bad, shown, target) {
	bad = missing != "" || (op == "<=" && val > limit) || (op == ">=" && val < limit)
	if (missing != "")
		all_missing = all_missing text ":\n" missing
	if (bad)
		short++
	shown = missing != "" ? "no result" : sprintf(fmt, val)
	if (op != "")
		target = sprintf((op == "<=" ? "at most " : "at least ") fmt, limit)
	line(text, shown, target, bad ? "fall short" : op == "" ? "" : "pass")
	missing = ""
}

# Cost of a fault, without that of the access itself
function fault(config, who, touch, memory,	access) {
	access = get(config, who "-fault", "mapped", memory, 16777216, 0)
	return get(config, who "-fault", touch, memory, 16777216, 0) - access
}

function fault_row(config, who, touch, memory, base, limit) {
	row(sprintf("  %s, %s, %s", who, touch, memory == base ? memory : memory " : " base),
	    100 * (ratio(fault(config, who, touch, memory), fault("base", who, touch, base)) - 1),
	    "%+.1f%%", "<=", limit)
}

function fault_rows(config, limit, shared,	i, touch) {
	split("first-touch refault", touch, " ")
	for (i = 1; i <= 2; i++) {
		fault_row(config, "guest", touch[i], "private", "private", limit)
		fault_row(config, "guest", touch[i], shared, "shared-anon", limit)
		fault_row(config, "guest", touch[i], "default-vm", "default-vm", limit)
		if (shared == "shared")
			fault_row(config, "host", touch[i], shared, "default-vm", limit)
		fault_row(config, "host", touch[i], "default-vm", "default-vm", limit)
	}
}

END {
	if (markdown) {
		line("case", "measured", "target", "")
		line("---", "---", "---", "---")
	} else {
		line("case", "measured", "target", "")
	}

	for (i = 1; i <= 2; i++) {
		d = directions[i]
		moved = d == "to-private" ? "host-mapped" : "populated"
		large = get("in-place", "convert", "unpopulated", d, LARGE, 0)
		growth = max(growth, ratio(large, get("in-place", "convert", "unpopulated", d, SMALL, 0)))
		speedup = min(i == 1 ? 1e99 : speedup,
			      ratio(get("base", "convert", "unpopulated", d, LARGE, 0), large))
		noop = max(noop, ratio(get("in-place", "noop", "populated", d, LARGE, 0),
				       get("in-place", "convert", moved, d, SMALL, 0)))
		one = max(one, ratio(get("in-place", "pattern", "one", d, LARGE, 1),
				     get("in-place", "alone", "one", d, SMALL, 1)))
	}
	row("unpopulated 1 GiB against unpopulated 4 KiB, in place", growth, "%.2fx", "<=", 3)
	row("unpopulated 1 GiB: base against in place", speedup, "%.0fx", ">=", 1000)
	row("no-op of populated 1 GiB against converting one page", noop, "%.2fx", "<=", 1)
	row("1 differing page in populated 1 GiB against that page alone", one, "%.2fx", "<=", 3)

	for (bytes = 2 * 1024 * 1024; bytes <= LARGE; bytes *= bytes < 64 * 1024 * 1024 ? 32 : 16)
		unmap = max(unmap, ratio(get("in-place", "convert", "host-mapped", "to-private", bytes, 0),
					 get("in-place", "shmem-dontneed", "host-mapped", "-", bytes, 0)))
	row("host-mapped to private against madvise(DONTNEED) of shmem", unmap, "%.2fx", "<=", 1.5)

	cycle = 64 * 1024 * 1024
	row("shared-private-shared with data kept: base against in place",
	    ratio(get("base", "cycle", "converted", "both", cycle, 0),
		  get("in-place", "cycle", "converted", "both", cycle, 0)), "%.1fx", ">=", 8)
	row("  the same, and every page is used after each conversion",
	    ratio(get("base", "cycle", "used", "both", cycle, 0),
		  get("in-place", "cycle", "used", "both", cycle, 0)), "%.1fx")

	# A string, as it is too large a number for an index
	row("tracking memory, uniform file of any size, in nodes",
	    ratio(get("in-place", "memory", "uniform-file", "-", "1099511627776", 256),
		  get("in-place", "memory", "node", "-", 0, 0)), "%.2f", "<=", 1)
	nr_pages = LARGE / 4096
	tracked = get("in-place", "memory", "alternate", "-", LARGE, nr_pages / 2)
	row("tracking memory, every other page differs, bytes per page",
	    ratio(tracked, nr_pages), "%.1f", "<=", 32)
	# Nodes are charged as objects, with what SLUB adds, and in batches.
	row("  and is charged to a memory cgroup",
	    100 * ratio(get("in-place", "memory-charged", "alternate", "-", LARGE, nr_pages / 2),
			tracked), "%.0f%%", ">=", 98)

	line("faults, in-place off, against base", "", "", "")
	fault_rows("per-vm", 1, "shared-anon")
	line("faults, in-place on, against base", "", "", "")
	fault_rows("in-place", 5, "shared")

	row("EAGAIN without pins while vCPUs and host fault on the range",
	    get("in-place", "storm", "eagain", "both", 2 * 1024 * 1024, 4), "%d", "<=", 0)

	if (all_missing != "")
		printf "%s", all_missing >"/dev/stderr"
	if (!markdown)
		printf "%d %s short of the target\n", short, short == 1 ? "falls" : "fall"
	exit short > 0
}

# Lines and branches that the series adds or changes, and whether the tests run
# them.  Input is vm/uncovered, a list of changed lines (FILE NUMBER), and the
# tracefile of lcov; what is left of the latter is written to the file "series".
#
# The exit status says whether "required" percent of the lines were run, and
# whether vm/uncovered has a reason for each line that was not, and for no other.

FNR == 1 {
	input++
}

# vm/uncovered: a reason, and below it, after a tab, FILE FUNCTION TEXT
input == 1 {
	if (/^#/ || /^$/)
		next
	if (!/^\t/) {
		reason = $0
		next
	}
	n_rules++
	rule_reason[n_rules] = reason
	rule_file[n_rules] = $1
	rule_function[n_rules] = $2
	sub(/^\t[^ ]+ +[^ ]+ +/, "")
	rule_text[n_rules] = $0
	next
}

input == 2 {
	changed[$1, $2] = 1
	next
}

/^SF:/ {
	file = substr($0, 4)
	name = index(file, src) == 1 ? substr(file, length(src) + 1) : file
	n_functions = 0
	split("", block)
	next
}

/^FN:/ {
	n = split(substr($0, 4), a, ",")
	start[++n_functions] = a[1]
	function_name[n_functions] = a[n]
	next
}

# The same as lcov 2 has it
/^FNL:/ {
	split(substr($0, 5), a, ",")
	line_of[a[1]] = a[2]
	next
}

/^FNA:/ {
	split(substr($0, 5), a, ",")
	start[++n_functions] = line_of[a[1]]
	function_name[n_functions] = a[3]
	next
}

/^DA:/ {
	split(substr($0, 4), a, ",")
	if ((name, a[1]) in changed)
		line(a[1] + 0, a[2] + 0)
	next
}

/^BRDA:/ {
	split(substr($0, 6), a, ",")
	if ((name, a[1]) in changed) {
		block[++n_block] = $0
		branches[name]++
		taken[name] += a[4] != "-" && a[4] > 0
	}
	next
}

/^end_of_record/ {
	if (n_out) {
		print "SF:" file > series
		for (i = 1; i <= n_out; i++)
			print out[i] > series
		for (i = 1; i <= n_block; i++)
			print block[i] > series
		print "end_of_record" > series
	}
	n_out = n_block = 0
	next
}

# line(NUMBER, COUNT): of the current file
function line(number, count,	i, best, fn, text, rule) {
	out[++n_out] = "DA:" number "," count
	if (!(name in lines))
		names[++n_names] = name
	lines[name]++
	if (count) {
		covered[name]++
		return
	}

	fn = "-"
	for (i = 1; i <= n_functions; i++) {
		if (start[i] <= number && start[i] > best) {
			best = start[i]
			fn = function_name[i]
		}
	}
	text = source(file, number)
	for (i = 1; i <= n_rules; i++) {
		if (rule_file[i] == name && (rule_function[i] == fn || rule_function[i] == "*") &&
		    (rule_text[i] == "*" || !used[i] && index(text, rule_text[i]))) {
			rule = i
			break
		}
	}
	if (rule) {
		used[rule]++
		reasons[rule_reason[rule]] = reasons[rule_reason[rule]] \
			sprintf("  %s:%d %s: %s\n", name, number, fn, text)
		n_reason[rule_reason[rule]]++
		if (rule_reason[rule] ~ /^hardware/)
			hardware[name]++
	} else {
		unexplained = unexplained sprintf("  %s:%d %s: %s\n", name, number, fn, text)
		n_unexplained++
	}
}

function source(file, number,	i) {
	if (file != read_file) {
		close(read_file)
		read_file = file
		split("", text_of)
		for (i = 1; (getline text_of[i] < file) > 0; i++)
			;
	}
	sub(/^[ \t]+/, "", text_of[number])
	return text_of[number]
}

function percent(part, all) {
	return all ? sprintf("%.1f%%", 100 * part / all) : "-"
}

function row(text, n, c, h, b, t) {
	printf "%-32s %6d %6d %8s %10s %8d %6d %8s\n", text, n, c, percent(c, n),
		percent(c, n - h), b, t, percent(t, b)
}

END {
	printf "%-32s %6s %6s %8s %10s %8s %6s %8s\n", "added or changed", "lines", "run", "",
		"runnable", "branches", "taken", ""
	for (i = 1; i <= n_names; i++) {
		f = names[i]
		row(f, lines[f], covered[f], hardware[f], branches[f], taken[f])
		n += lines[f]; c += covered[f]; h += hardware[f]
		b += branches[f]; t += taken[f]
	}
	row("total", n, c, h, b, t)
	print ""
	print "Lines that were not run, and why:"
	for (reason in reasons)
		printf "\n%s (%d):\n%s", reason, n_reason[reason], reasons[reason]
	if (n_unexplained)
		printf "\nNot in vm/uncovered (%d):\n%s", n_unexplained, unexplained
	for (i = 1; i <= n_rules; i++)
		if (!used[i]) {
			stale++
			printf "\nvm/uncovered has what is run, or is gone: %s %s %s\n",
				rule_file[i], rule_function[i], rule_text[i]
		}
	bad = !n || n_unexplained || stale || 100 * c < required * (n - h)
	printf "\n%d passed, %d failed, %d skipped: %s of all changed lines run, %s of those that can run here\n",
		c, n_unexplained + stale, n - c - n_unexplained, percent(c, n), percent(c, n - h)
	exit bad
}

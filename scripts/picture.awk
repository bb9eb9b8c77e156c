# Draw what gmem-vmm --trace has recorded, read as lines of
#	file NAME SIZE, map TIME OFFSET SIZE private|shared, memory TIME BYTES, end TIME
# once per run.  As text to standard output, and as an SVG to the file svg.
#
# The map has the file's offset from top to bottom and time from left to right:
# "#" is private, "." is shared, "+" is both.  Below it is the memory in use, on
# the same scale for all runs.

BEGIN {
	columns = 64; rows = 12; bars = 6; page = 4096
	width = 640; height = 180; margin = 60; gap = 70
}

$1 == "file" { nr++; name[nr] = $2; size[nr] = $3 }
$1 == "map" || $1 == "memory" { event[nr, ++events[nr]] = $0 }
$1 == "memory" && $3 > most { most = $3 }
$1 == "end" { end[nr] = $2 > 0 ? $2 : 1; complete++ }

function mib(bytes) { return sprintf("%.0f MiB", bytes / 1048576) }

# What happened until the end of a column; the state is in private[] and memory
function advance(run, limit,   part, first, last, p, row) {
	while (next_event <= events[run]) {
		split(event[run, next_event], part, " ")
		if (part[2] > limit)
			break
		next_event++
		if (part[1] == "memory") {
			memory = part[3]
			continue
		}
		first = part[3] / page
		last = first + part[4] / page
		for (p = first; p < last; p++) {
			if (is_private[p] == (part[5] == "private"))
				continue
			is_private[p] = part[5] == "private"
			row = int(p * page * rows / size[run])
			private[row] += is_private[p] ? 1 : -1
		}
	}
}

function start(run,   i) {
	next_event = 1
	memory = 0
	split("", is_private)
	for (i = 0; i < rows; i++)
		private[i] = 0
	for (i = 0; i < size[run] / page; i++)
		is_private[i] = 0
}

# Of the pages of a row: 0 shared, 1 private, between: both
function share(run, row,   pages) {
	pages = size[run] / page / rows
	return private[row] >= pages - 1 ? 1 : private[row] <= 0 ? 0 : private[row] / pages
}

function sample(run,   column, row) {
	start(run)
	for (column = 0; column < columns; column++) {
		advance(run, end[run] * (column + 1) / columns)
		for (row = 0; row < rows; row++)
			cell[row, column] = share(run, row)
		used[column] = memory
	}
}

function print_text(run,   row, column, line) {
	printf "\n%s: %s of guest_memfd, private # and shared .\n", name[run], mib(size[run])
	for (row = 0; row < rows; row++) {
		line = ""
		for (column = 0; column < columns; column++)
			line = line (cell[row, column] == 1 ? "#" : cell[row, column] == 0 ? "." : "+")
		printf "%9s |%s\n", mib(size[run] * row / rows), line
	}
	printf "memory used\n"
	for (row = bars; row > 0; row--) {
		line = ""
		for (column = 0; column < columns; column++)
			line = line (used[column] >= most * (row - 0.5) / bars ? "=" : " ")
		sub(/ +$/, "", line)
		printf "%9s |%s\n", mib(most * row / bars), line
	}
	printf "%9s 0 %*s\n", "", columns - 1, sprintf("%.1f s", end[run])
}

function text(x, y, anchor, content) {
	printf "<text x='%d' y='%d' text-anchor='%s'>%s</text>\n", x, y, anchor, content >svg
}

function rectangle(x, y, w, h, fill) {
	printf "<rect x='%.1f' y='%.1f' width='%.2f' height='%.2f' fill='%s'/>\n", x, y, w, h, fill >svg
}

# From the light of shared to the dark of private
function shade(part) {
	return sprintf("rgb(%d,%d,%d)", 220 - 190 * part, 230 - 160 * part, 240 - 110 * part)
}

function draw(run, top,   row, column, w, h, high, right) {
	w = width / columns
	h = height / rows
	right = margin + width + margin + 40
	text(margin, top - 8, "start", name[run] ": private (dark) and shared (light) of " mib(size[run]))
	text(right, top - 8, "start", name[run] ": memory used")
	rectangle(right, top, width, height, "rgb(240,240,240)")
	for (column = 0; column < columns; column++) {
		for (row = 0; row < rows; row++)
			rectangle(margin + column * w, top + row * h, w + 0.3, h + 0.3, shade(cell[row, column]))
		high = most ? used[column] / most * height : 0
		rectangle(right + column * w, top + height - high, w + 0.3, high, "rgb(190,110,40)")
	}
	text(margin - 6, top + 10, "end", "0")
	text(margin - 6, top + height, "end", mib(size[run]))
	text(right - 6, top + 10, "end", mib(most))
	text(right - 6, top + height, "end", "0")
	text(margin + width, top + height + 16, "end", sprintf("%.1f s", end[run]))
	text(right + width, top + height + 16, "end", sprintf("%.1f s", end[run]))
}

END {
	if (!nr || complete != nr) {
		print "there is no complete trace to draw" >"/dev/stderr"
		exit 1
	}
	printf "<svg xmlns='http://www.w3.org/2000/svg' width='%d' height='%d' font-family='sans-serif' font-size='13'>\n",
		2 * width + 3 * margin + 60, nr * (height + gap) + gap / 2 >svg
	print "<rect width='100%' height='100%' fill='white'/>" >svg
	for (run = 1; run <= nr; run++) {
		sample(run)
		print_text(run)
		draw(run, gap / 2 + (run - 1) * (height + gap))
	}
	print "</svg>" >svg
}

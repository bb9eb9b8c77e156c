# Draw what gmem-vmm --trace has recorded.  Input, once for each run:
#
#	file NAME SIZE
#	map TIME OFFSET SIZE private|shared	a conversion is done; all is shared before
#	memory TIME GUEST_MEMFD OTHER		bytes in use
#	phase TIME TEXT				what happens from here on
#	end TIME
#
# As text to standard output and, with -v svg=FILE, as a picture to that file.
# Both show for each run, over time, which part of guest_memfd is private, and
# the memory in use.  Runs of the same size have the same scale for memory.

BEGIN {
	PAGE = 4096
	MIB = 1048576

	# Of the text, in characters, and of the picture
	COLUMNS = 64
	LINES = 12
	BARS = 8
	ROWS = 64

	# In pixels
	WIDTH = 400
	MAP = 192
	MEMORY = 128
	LEFT = 76
	RIGHT = 24
	TOP = 86
	BETWEEN = 52
	BOTTOM = 78

	PRIVATE = "#1f4e79"
	SHARED = "#cfe2f3"
	OTHER = "#e08a3c"
	INK = "#333333"
	GRID = "#bbbbbb"
}

function fail(why) {
	print "picture.awk: " why >"/dev/stderr"
	failed = 1
	exit 1
}

$1 == "file" { name[++nr] = $2; size[nr] = $3; next }
!nr { next }
$1 == "map" || $1 == "memory" { event[nr, ++events[nr]] = $0; next }
$1 == "phase" {
	phase_at[nr, ++phases[nr]] = $2
	sub(/^phase +[^ ]+ +/, "")
	phase[nr, phases[nr]] = $0
	next
}
$1 == "end" { end[nr] = $2 > 0 ? $2 : 1; complete++ }

# ----- What happened ---------------------------------------------------------

function start(rows,   i) {
	split("", is_private)
	split("", nr_private)
	for (i = 0; i < rows; i++)
		nr_private[i] = 0
}

# The state of a range of pages; counts the private ones of each row
function change(run, rows, offset, bytes, private,   p, last) {
	last = (offset + bytes) / PAGE
	for (p = offset / PAGE; p < last; p++) {
		if ((p in is_private) == private)
			continue
		if (private)
			is_private[p]
		else
			delete is_private[p]
		nr_private[int(p * PAGE * rows / size[run])] += private ? 1 : -1
	}
}

# How much of a row is private, from 0 to 1
function share(run, rows, row,   first, last) {
	first = int((row * size[run] / rows + PAGE - 1) / PAGE)
	last = int(((row + 1) * size[run] / rows + PAGE - 1) / PAGE)
	return nr_private[row] / (last - first)
}

# A scale for memory that is good for all runs of this size
function find_scales(   run, i, part, key) {
	for (run = 1; run <= nr; run++) {
		if (size[run] > most[size[run]])
			most[size[run]] = size[run]
		for (i = 1; i <= events[run]; i++) {
			split(event[run, i], part, " ")
			if (part[1] == "memory" && part[3] + part[4] > most[size[run]])
				most[size[run]] = part[3] + part[4]
		}
	}
	for (key in most)
		most[key] = ceiling(most[key] / MIB) * MIB
}

# The next number of the kind 32, 48, 64, 96, ..., of MiB
function ceiling(mib,   c) {
	for (c = 1; c * 1.5 < mib; c *= 2)
		;
	return c >= mib ? c : c * 1.5
}

# ----- Text ------------------------------------------------------------------

function draw_text(run,   column, row, i, part, used, peak, line) {
	start(LINES)
	i = 1
	used = 0
	for (column = 0; column < COLUMNS; column++) {
		peak = used
		for (; i <= events[run]; i++) {
			split(event[run, i], part, " ")
			if (part[2] * COLUMNS > end[run] * (column + 1))
				break
			if (part[1] == "map")
				change(run, LINES, part[3], part[4], part[5] == "private")
			else
				used = part[3] + part[4]
			if (used > peak)
				peak = used
		}
		for (row = 0; row < LINES; row++)
			cell[row, column] = symbol(share(run, LINES, row))
		bar[column] = peak
	}

	printf "\n%s: guest_memfd, # private, . shared, + both\n", name[run]
	for (row = 0; row < LINES; row++) {
		line = ""
		for (column = 0; column < COLUMNS; column++)
			line = line cell[row, column]
		print_line(row % 3 ? "" : sprintf("%.0f MiB", size[run] * row / LINES / MIB), line)
	}
	print "memory in use"
	for (row = BARS; row > 0; row--) {
		line = ""
		for (column = 0; column < COLUMNS; column++)
			line = line (bar[column] * BARS >= most[size[run]] * (row - 0.5) ? "=" : " ")
		print_line(row % 2 ? "" : sprintf("%.0f MiB", most[size[run]] * row / BARS / MIB), line)
	}
	printf "%9s  0 s%" (COLUMNS - 3) "s\n", "", sprintf("%.1f s", end[run])
}

function symbol(part) {
	return part < 0.02 ? "." : part > 0.98 ? "#" : "+"
}

function print_line(label, line) {
	sub(/ +$/, "", line)
	printf "%9s |%s\n", label, line
}

# ----- Picture ---------------------------------------------------------------

function text(x, y, anchor, more, content) {
	printf "<text x='%.1f' y='%.1f' text-anchor='%s'%s>%s</text>\n", x, y, anchor, more, content >svg
}

function rectangle(x, y, w, h, fill) {
	printf "<rect x='%.2f' y='%.2f' width='%.2f' height='%.2f' fill='%s'/>\n", x, y, w, h, fill >svg
}

function line(x1, y1, x2, y2, more) {
	printf "<line x1='%.1f' y1='%.1f' x2='%.1f' y2='%.1f' stroke='%s'/>\n", x1, y1, x2, y2, more >svg
}

# Between the colours of shared and private
function shade(part) {
	return sprintf("rgb(%d,%d,%d)", 207 - 176 * part, 226 - 148 * part, 243 - 122 * part)
}

function title(run) {
	return name[run] == "in-place" ? "in place" : name[run] == "per-vm" ? "per VM (two backings)" : \
		name[run] == "linux" ? "in place, Linux as the guest" : name[run]
}

# A step between ticks that makes at most so many of them
function step(range, ticks,   s) {
	for (s = 0.001; ; s *= 10) {
		if (range <= s * ticks)
			return s
		if (range <= 2 * s * ticks)
			return 2 * s
		if (range <= 5 * s * ticks)
			return 5 * s
	}
}

# The left and lower axis of a panel.  A scale has its 0 at the top (map) or at the
# bottom (memory).
function axes(run, x, y, h, scale, down, label,   i, at, s) {
	printf "<rect x='%.1f' y='%.1f' width='%d' height='%d' fill='none' stroke='%s'/>\n",
		x, y, WIDTH, h, INK >svg
	for (i = 0; i <= 4; i++) {
		at = down ? y + h * i / 4 : y + h - h * i / 4
		line(x - 4, at, x, at, INK)
		text(x - 8, at + 4, "end", "", sprintf("%g", scale * i / 4 / MIB))
	}
	printf "<text transform='translate(%.1f %.1f) rotate(-90)' text-anchor='middle'>%s</text>\n",
		x - 46, y + h / 2, label >svg
	s = step(end[run], 6)
	for (i = 0; i * s <= end[run]; i++) {
		at = x + WIDTH * i * s / end[run]
		line(at, y + h, at, y + h + 4, INK)
		text(at, y + h + 17, "middle", "", sprintf("%g", i * s))
	}
}

# Rectangles, each as wide as nothing changes in its row
function draw_map(run, x, y,   i, row, first, last, part, now, high, since, shown) {
	start(ROWS)
	high = MAP / ROWS
	split("", since)
	split("", shown)
	rectangle(x, y, WIDTH, MAP, shade(0))
	for (i = 1; i <= events[run] + 1; i++) {
		split(i > events[run] ? "map " end[run] " 0 " size[run] " end" : event[run, i], part, " ")
		if (part[1] != "map")
			continue
		now = x + WIDTH * part[2] / end[run]
		if (part[5] != "end")
			change(run, ROWS, part[3], part[4], part[5] == "private")
		first = int(part[3] * ROWS / size[run])
		last = int((part[3] + part[4] - PAGE) * ROWS / size[run])
		for (row = first; row <= last; row++) {
			if (part[5] != "end" && share(run, ROWS, row) == shown[row] + 0)
				continue
			if (shown[row] > 0 && now > since[row])
				rectangle(since[row], y + row * high, now - since[row], high + 0.1, shade(shown[row]))
			shown[row] = share(run, ROWS, row)
			since[row] = now
		}
	}
	axes(run, x, y, MAP, size[run], 1, "offset in file [MiB]")
}

# The area below a line of steps
function area(run, x, y, both, fill,   i, part, used, at, points) {
	used = 0
	points = sprintf("%.1f,%.1f", x, y + MEMORY)
	for (i = 1; i <= events[run]; i++) {
		split(event[run, i], part, " ")
		if (part[1] != "memory")
			continue
		at = x + WIDTH * part[2] / end[run]
		points = points sprintf(" %.1f,%.1f", at, y + MEMORY - MEMORY * used / most[size[run]])
		used = part[3] + (both ? part[4] : 0)
		points = points sprintf(" %.1f,%.1f", at, y + MEMORY - MEMORY * used / most[size[run]])
	}
	points = points sprintf(" %.1f,%.1f %.1f,%.1f", x + WIDTH,
		y + MEMORY - MEMORY * used / most[size[run]], x + WIDTH, y + MEMORY)
	printf "<polygon points='%s' fill='%s'/>\n", points, fill >svg
}

function draw_memory(run, x, y,   at) {
	rectangle(x, y, WIDTH, MEMORY, "#f4f4f4")
	area(run, x, y, 1, OTHER)
	area(run, x, y, 0, PRIVATE)
	at = y + MEMORY - MEMORY * size[run] / most[size[run]]
	line(x, at, x + WIDTH, at, INK "' stroke-dasharray='5,4")
	axes(run, x, y, MEMORY, most[size[run]], 0, "memory [MiB]")
	text(x + WIDTH / 2, y + MEMORY + 34, "middle", "", "time [s]")
}

# Above the map, as many as there is room for
function draw_phases(run, x, y,   i, at, free) {
	free = x
	for (i = 1; i <= phases[run]; i++) {
		at = x + WIDTH * phase_at[run, i] / end[run]
		line(at, y - 6, at, y, INK)
		if (at + 2 < free || at + 5.6 * length(phase[run, i]) > x + WIDTH + RIGHT)
			continue
		text(at, y - 9, "start", " font-size='11'", phase[run, i])
		free = at + 5.6 * length(phase[run, i]) + 8
	}
}

function key(x, y, fill, content) {
	rectangle(x, y - 11, 14, 14, fill)
	text(x + 20, y, "start", "", content)
	return x + 20 + 7 * length(content) + 24
}

function draw_legend(x, y) {
	text(x, y, "start", "", "Map:")
	x = key(x + 40, y, shade(1), "private")
	x = key(x, y, shade(0.5), "some of both")
	x = key(x, y, shade(0), "shared")
	text(x + 16, y, "start", "", "Memory:")
	x = key(x + 82, y, PRIVATE, "in guest_memfd")
	x = key(x, y, OTHER, "in the other backing")
	line(x, y - 4, x + 28, y - 4, INK "' stroke-dasharray='5,4")
	text(x + 34, y, "start", "", "size of the guest")
}

function draw_picture(   run, x, all) {
	all = LEFT + WIDTH + RIGHT
	printf "<svg xmlns='http://www.w3.org/2000/svg' width='%d' height='%d' font-family='sans-serif' font-size='13' fill='%s'>\n",
		nr * all, TOP + MAP + BETWEEN + MEMORY + BOTTOM, INK >svg
	print "<rect width='100%' height='100%' fill='white'/>" >svg
	for (run = 1; run <= nr; run++) {
		x = (run - 1) * all + LEFT
		text(x, 28, "start", " font-size='16' font-weight='bold'", title(run))
		text(x, 48, "start", "", sprintf("guest of %g MiB", size[run] / MIB))
		draw_phases(run, x, TOP)
		draw_map(run, x, TOP)
		draw_memory(run, x, TOP + MAP + BETWEEN)
	}
	draw_legend(LEFT, TOP + MAP + BETWEEN + MEMORY + BOTTOM - 16)
	print "</svg>" >svg
	if (close(svg))
		fail("cannot write " svg)
}

END {
	if (failed)
		exit 1
	if (!nr || complete != nr)
		fail("there is no complete trace to draw")
	find_scales()
	for (run = 1; run <= nr; run++)
		draw_text(run)
	if (svg)
		draw_picture()
}

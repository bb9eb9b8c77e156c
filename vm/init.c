// SPDX-License-Identifier: GPL-2.0-only
/*
 * The first process in the test VM.  It mounts what tests need, loads KVM and
 * runs programs as /plan says, and reports in TAP on the second serial port,
 * which nothing else writes to.
 *
 * Nothing that goes wrong may look like a pass: every program has a time-out, a
 * kernel message that matches /problems fails the program that caused it, the
 * number of results is announced before the first one, and the last line is
 * written only at the end.  The host checks both, and the kernel's log again.
 *
 * Lines of /plan; the words are separated by one tab, NAME is what results are
 * reported as:
 *	kvm	NAME	VARIANT	Y|N|default-Y|default-N|-
 *						unload KVM, load that of /modules/VARIANT
 *						with gmem_in_place_conversion=Y|N, or
 *						without it, which then has to be so
 *						(-: there is no such parameter)
 *	run	NAME	SECONDS	COMMAND		run COMMAND with a time-out
 *	stop					from here on, end at the first failure
 *	shell					a shell on the console
 *
 * A line of the report that begins with "# " is output of a program; what init
 * itself has to say begins with "#" and no space.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <regex.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define MAX_LINES	512
#define MAX_PROBLEMS	64
#define KSFT_SKIP	4
#define KILL_SECONDS	20
#define UNLOAD_SECONDS	10
#define KMEMLEAK	"/sys/kernel/debug/kmemleak"
#define KMEMLEAK_SECONDS	6
#define PARAMETER	"gmem_in_place_conversion"
#define DEFAULT		"default-"

static FILE *tap;
static int nr_results;
static bool stop_at_failure;

static regex_t problems[MAX_PROBLEMS], exceptions[MAX_PROBLEMS];
static int nr_problems, nr_exceptions;
static int kmsg;

static const char *vendor_module;
static const char *loaded_name;

/* The host sees the missing end of the report. */
static void __attribute__((noreturn)) power_off(void)
{
	fflush(tap);
	tcdrain(fileno(tap));
	sync();
	reboot(RB_POWER_OFF);
	reboot(RB_AUTOBOOT);
	for (;;)
		pause();
}

static void __attribute__((noreturn, format(printf, 1, 2)))
bail_out(const char *fmt, ...)
{
	va_list args;

	fprintf(tap, "Bail out! ");
	va_start(args, fmt);
	vfprintf(tap, fmt, args);
	va_end(args);
	fputc('\n', tap);
	power_off();
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

static void write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		fprintf(tap, "#%s: %s\n", path, strerror(errno));
	if (fd >= 0)
		close(fd);
}

/* The port carries bytes as they are. */
static void open_results(void)
{
	struct termios tio;
	int fd;

	mkdir("/dev", 0755);
	mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
	fd = open("/dev/ttyS1", O_WRONLY | O_NOCTTY | O_CLOEXEC);
	if (fd < 0 || tcgetattr(fd, &tio))
		_exit(1);	/* the kernel panics: its init is gone */
	cfmakeraw(&tio);
	tcsetattr(fd, TCSANOW, &tio);
	tap = fdopen(fd, "w");
	setvbuf(tap, NULL, _IOLBF, 0);
}

static void mount_all(void)
{
	static const struct {
		const char *type, *dir;
	} mounts[] = {
		{ "proc", "/proc" },
		{ "sysfs", "/sys" },
		{ "tmpfs", "/tmp" },
		{ "tmpfs", "/dev/shm" },
		{ "devpts", "/dev/pts" },
		{ "debugfs", "/sys/kernel/debug" },
		{ "tracefs", "/sys/kernel/tracing" },
		{ "cgroup2", "/sys/fs/cgroup" },
	};

	for (size_t i = 0; i < sizeof(mounts) / sizeof(mounts[0]); i++) {
		mkdir(mounts[i].dir, 0755);
		if (mount(mounts[i].type, mounts[i].dir, mounts[i].type, 0, NULL))
			bail_out("mount %s: %s", mounts[i].dir, strerror(errno));
	}
}

static void read_problems(void)
{
	FILE *f = fopen("/problems", "r");
	const char except[] = "except ";
	char line[256];

	while (f && fgets(line, sizeof(line), f)) {
		bool exception = !strncmp(line, except, strlen(except));
		const char *pattern = exception ? line + strlen(except) : line;
		regex_t *list = exception ? exceptions : problems;
		int *nr = exception ? &nr_exceptions : &nr_problems;

		line[strcspn(line, "\n")] = 0;
		if (!line[0] || line[0] == '#')
			continue;
		if (*nr == MAX_PROBLEMS ||
		    regcomp(&list[(*nr)++], pattern, REG_EXTENDED | REG_NOSUB))
			bail_out("/problems: cannot use \"%s\"", line);
	}
	if (!nr_problems)
		bail_out("/problems is missing or empty");
	fclose(f);

	kmsg = open("/dev/kmsg", O_RDWR | O_NONBLOCK | O_CLOEXEC);
	if (kmsg < 0)
		bail_out("/dev/kmsg: %s", strerror(errno));
}

/* Leave a mark in the kernel's log.  (dprintf() would try to seek.) */
static void __attribute__((format(printf, 1, 2))) note(const char *fmt, ...)
{
	char text[256] = "<6>gmem: ";
	size_t len = strlen(text);
	va_list args;

	va_start(args, fmt);
	vsnprintf(text + len, sizeof(text) - len, fmt, args);
	va_end(args);
	if (write(kmsg, text, strlen(text)) < 0)
		bail_out("cannot write to /dev/kmsg: %s", strerror(errno));
}

static bool matches(const char *text, const regex_t *list, int nr)
{
	for (int i = 0; i < nr; i++)
		if (!regexec(&list[i], text, 0, NULL, 0))
			return true;
	return false;
}

/*
 * Read what the kernel logged since the last call.  Returns the first message
 * that matches a problem, or NULL.  When messages were lost it goes on: the
 * console has them all, and the host looks there.
 */
static const char *kernel_problem(void)
{
	static char found[512];
	char record[8192], *text;
	ssize_t len;

	found[0] = 0;
	for (;;) {
		len = read(kmsg, record, sizeof(record) - 1);
		if (len < 0 && (errno == EPIPE || errno == EINTR))
			continue;
		if (len <= 0)
			break;
		record[len] = 0;
		text = strchr(record, ';');
		if (found[0] || !text)
			continue;
		text++;
		text[strcspn(text, "\n")] = 0;
		if (matches(text, problems, nr_problems) &&
		    !matches(text, exceptions, nr_exceptions))
			snprintf(found, sizeof(found), "%s", text);
	}
	return found[0] ? found : NULL;
}

static void __attribute__((format(printf, 3, 4)))
result(bool ok, const char *name, const char *fmt, ...)
{
	const char *problem = kernel_problem();
	va_list args;

	ok = ok && !problem;
	fprintf(tap, "%s %d - %s # ", ok ? "ok" : "not ok", ++nr_results, name);
	va_start(args, fmt);
	vfprintf(tap, fmt, args);
	va_end(args);
	if (problem)
		fprintf(tap, "; kernel: %s", problem);
	fputc('\n', tap);
	if (!ok && stop_at_failure)
		bail_out("that is enough");
}

static int load_module(const char *variant, const char *module, const char *params)
{
	char path[128];
	int fd, ret;

	snprintf(path, sizeof(path), "/modules/%s/%s.ko", variant, module);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	ret = fd < 0 ? -1 : syscall(SYS_finit_module, fd, params, 0);
	if (ret)
		fprintf(tap, "#%s: %s\n", path, strerror(errno));
	if (fd >= 0)
		close(fd);
	return ret;
}

/* References from files that are just being closed go away by themselves. */
static int unload_module(const char *module)
{
	double deadline = now() + UNLOAD_SECONDS;
	int ret;

	do {
		ret = syscall(SYS_delete_module, module, O_NONBLOCK);
		if (!ret || errno != EAGAIN)
			break;
		usleep(100 * 1000);
	} while (now() < deadline);
	if (ret)
		fprintf(tap, "#cannot unload %s: %s\n", module, strerror(errno));
	return ret;
}

/*
 * Memory that nothing points to any more, if the kernel can tell.  It doesn't
 * tell about what is younger than five seconds, nor unless it has not changed
 * since the previous scan.  Returns how much is lost, and reports what it is.
 */
static int count_leaks(void)
{
	char *line = NULL;
	size_t size = 0;
	int leaks = 0;
	FILE *f;

	if (access(KMEMLEAK, W_OK))
		return 0;

	note("look for leaks");
	sleep(KMEMLEAK_SECONDS);
	write_file(KMEMLEAK, "scan");
	write_file(KMEMLEAK, "scan");
	f = fopen(KMEMLEAK, "r");
	while (f && getline(&line, &size, f) > 0) {
		leaks += !strncmp(line, "unreferenced object", 19);
		fprintf(tap, "#%s", line);
	}
	free(line);
	if (f)
		fclose(f);
	/* What has been reported isn't to be reported again. */
	write_file(KMEMLEAK, "clear");
	return f ? leaks : 1;
}

static void unload_kvm(void)
{
	char name[160];
	int ret, leaks;

	if (!loaded_name)
		return;
	/* While the kernel still knows the names of KVM's functions. */
	leaks = count_leaks();
	note("unload kvm");
	ret = unload_module(vendor_module);
	ret |= unload_module("kvm");
	ret |= unload_module("irqbypass");
	/* What only KVM's data pointed to. */
	leaks += count_leaks();
	snprintf(name, sizeof(name), "%s: unload kvm", loaded_name);
	result(!ret && !leaks, name, "%s%s", ret ? "still in use" : "done",
	       leaks ? ", there are leaks" : "");
	loaded_name = NULL;
}

/*
 * KVM remembers the frequency of the TSC when it is loaded, and guests of a host that
 * can't scale find their TSC at a standstill if the host corrects that by more than
 * 0.025% thereafter.  It does so in the background, soon after it booted, and by that
 * much if the machine that emulates it was busy.
 */
static void wait_for_tsc(void)
{
	const char *path = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
	char is[16] = "";
	int tries;
	FILE *f;

	for (tries = 0; tries < 200; tries++) {
		f = fopen(path, "r");
		if (!f)
			return;
		if (!fgets(is, sizeof(is), f))
			is[0] = 0;
		fclose(f);
		if (strcmp(is, "tsc-early\n"))
			return;
		usleep(100000);
	}
	note("the frequency of the TSC is still not known");
}

static void load_kvm(const char *name, const char *variant, const char *value)
{
	char params[64] = "", is[4] = "-", label[160];
	bool ok;
	FILE *f;

	unload_kvm();
	wait_for_tsc();
	if (!strncmp(value, DEFAULT, strlen(DEFAULT)))
		value += strlen(DEFAULT);
	else if (value[0] != '-')
		snprintf(params, sizeof(params), PARAMETER "=%s", value);
	note("load kvm, VM_MEMORY_ATTRIBUTES=%s " PARAMETER "=%s", variant, value);
	ok = !load_module(variant, "irqbypass", "");
	ok = ok && !load_module(variant, "kvm", params);
	ok = ok && !load_module(variant, vendor_module, "");

	f = fopen("/sys/module/kvm/parameters/" PARAMETER, "r");
	if (f) {
		if (!fgets(is, 2, f))
			is[0] = 0;
		fclose(f);
	}
	loaded_name = name;
	snprintf(label, sizeof(label), "%s: load kvm", name);
	result(ok && !strcmp(is, value), label,
	       "VM_MEMORY_ATTRIBUTES=%s " PARAMETER "=%s", variant, is);
}

/* What the processor has decides: SVM when QEMU emulates it, else the host's. */
static void find_vendor_module(void)
{
	FILE *f = fopen("/proc/cpuinfo", "r");
	char line[4096];

	while (f && !vendor_module && fgets(line, sizeof(line), f)) {
		if (strncmp(line, "flags", 5))
			continue;
		if (strstr(line, " svm"))
			vendor_module = "kvm_amd";
		else if (strstr(line, " vmx"))
			vendor_module = "kvm_intel";
	}
	if (!vendor_module)
		bail_out("this processor has neither SVM nor VMX");
	fclose(f);
}

static pid_t start(const char *command, int output)
{
	pid_t pid = fork();

	if (pid)
		return pid;
	setsid();
	dup2(open("/dev/null", O_RDONLY), 0);
	dup2(output, 1);
	dup2(output, 2);
	chdir("/tmp");
	execl("/bin/sh", "sh", "-c", command, NULL);
	_exit(127);
}

/*
 * Copy to the report until the deadline, the end of the output, or a sub-test that
 * failed, if that's enough.
 */
static bool copy_output(int fd, double deadline, bool *failed)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN };
	static const char failure[] = "not ok ";
	size_t column = 0, matched = 0;
	static bool in_line;
	char buf[4096];
	double left;
	ssize_t len;

	*failed = false;

	while ((left = deadline - now()) > 0) {
		if (poll(&pfd, 1, left * 1000 + 1) <= 0)
			continue;
		len = read(fd, buf, sizeof(buf));
		if (len <= 0)
			break;
		for (ssize_t i = 0; i < len; i++) {
			if (!in_line) {
				fputs("# ", tap);
				column = matched = 0;
			}
			fputc(buf[i], tap);
			in_line = buf[i] != '\n';
			matched += column == matched && buf[i] == failure[column];
			column += column < sizeof(failure) - 1;
			*failed |= !in_line && matched == sizeof(failure) - 1;
		}
		fflush(tap);
		if (*failed && stop_at_failure)
			break;
	}
	if (in_line)
		fputc('\n', tap);
	in_line = false;
	return left > 0 && !(*failed && stop_at_failure);
}

/* True when process @pid ended in time; its status is then in @status. */
static bool wait_for(pid_t pid, int *status, double deadline)
{
	for (;;) {
		pid_t got = waitpid(-1, status, WNOHANG);

		if (got == pid)
			return true;
		if (got > 0)
			continue;	/* an orphan */
		if (now() > deadline)
			return false;
		usleep(10 * 1000);
	}
}

static void run(const char *name, int seconds, const char *command)
{
	double started = now(), deadline = started + seconds;
	char why[64] = "";
	int fds[2], status;
	bool ended, failed;
	pid_t pid;

	note("start %s", name);
	fprintf(tap, "#start %s\n", name);
	if (pipe2(fds, O_CLOEXEC))
		bail_out("pipe: %s", strerror(errno));
	pid = start(command, fds[1]);
	close(fds[1]);

	ended = copy_output(fds[0], deadline, &failed) && wait_for(pid, &status, deadline);
	if (failed && stop_at_failure) {
		snprintf(why, sizeof(why), "stopped, ");
	} else if (!ended) {
		snprintf(why, sizeof(why), "timed out, ");
		/* Where everybody is, for the log; then make an end of it. */
		note("%s timed out; blocked tasks and all processors:", name);
		write_file("/proc/sysrq-trigger", "w");
		write_file("/proc/sysrq-trigger", "l");
	}
	/* What it left behind must not live on into the next test. */
	kill(-pid, SIGKILL);
	if (!ended && !wait_for(pid, &status, now() + KILL_SECONDS))
		bail_out("%s timed out and cannot be killed", name);
	close(fds[0]);

	if (ended && WIFSIGNALED(status))
		snprintf(why, sizeof(why), "killed by signal %d, ", WTERMSIG(status));
	else if (ended && WEXITSTATUS(status) == KSFT_SKIP)
		snprintf(why, sizeof(why), "SKIP ");
	else if (ended && status)
		snprintf(why, sizeof(why), "exit status %d, ", WEXITSTATUS(status));

	result(ended && WIFEXITED(status) &&
	       (!WEXITSTATUS(status) || WEXITSTATUS(status) == KSFT_SKIP),
	       name, "%s%.1f s", why, now() - started);
	note("end %s", name);
}

static void shell(void)
{
	pid_t pid = fork();
	int fd, status;

	if (!pid) {
		setsid();
		fd = open("/dev/ttyS0", O_RDWR);
		ioctl(fd, TIOCSCTTY, 1);
		for (int i = 0; i < 3; i++)
			dup2(fd, i);
		execl("/bin/sh", "-sh", NULL);
		_exit(127);
	}
	waitpid(pid, &status, 0);
}

static void read_plan(char *lines[], int *nr)
{
	FILE *f = fopen("/plan", "r");
	char *line = NULL;
	size_t size = 0;

	while (f && getline(&line, &size, f) > 0) {
		line[strcspn(line, "\n")] = 0;
		if (*nr == MAX_LINES)
			bail_out("/plan is longer than %d lines", MAX_LINES);
		lines[(*nr)++] = strdup(line);
	}
	if (!*nr)
		bail_out("/plan is missing or empty");
}

int main(void)
{
	char *lines[MAX_LINES], *line, *kind, *name, *arg;
	int nr_lines = 0, planned = 1;

	open_results();
	mount_all();
	setenv("PATH", "/bin", 1);
	setenv("HOME", "/tmp", 1);
	setenv("TERM", "linux", 1);
	setrlimit(RLIMIT_NOFILE, &(struct rlimit){ 65536, 65536 });

	read_plan(lines, &nr_lines);
	for (int i = 0; i < nr_lines; i++)
		planned += !strncmp(lines[i], "kvm\t", 4) ? 2 :
			   !strncmp(lines[i], "run\t", 4);
	fprintf(tap, "TAP version 13\n1..%d\n", planned);
	read_problems();
	find_vendor_module();
	result(true, "boot", "%.1f s", now());

	for (int i = 0; i < nr_lines; i++) {
		line = lines[i];
		kind = strsep(&line, "\t");
		name = strsep(&line, "\t");
		arg = strsep(&line, "\t");
		if (!strcmp(kind, "kvm") && line)
			load_kvm(name, arg, line);
		else if (!strcmp(kind, "run") && line)
			run(name, atoi(arg), line);
		else if (!strcmp(kind, "stop"))
			stop_at_failure = true;
		else if (!strcmp(kind, "shell"))
			shell();
		else
			bail_out("/plan: cannot understand line %d", i + 1);
	}
	unload_kvm();
	note("end of results");
	fprintf(tap, "#end\n");
	power_off();
}

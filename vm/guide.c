// SPDX-License-Identifier: GPL-2.0-only
/*
 * Run the code that the guide for VMM authors has for moving from per-VM
 * attributes to conversion in place.  scripts/vmm.sh takes it from there, as
 * porting-guide.h.
 *
 * usage: guide in-place|per-vm, which is what KVM is expected to support
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>
#include <linux/kvm.h>
#include "porting-guide.h"

#define GPA		0x100000
#define SIZE		0x100000
#define PAGE		0x1000
#define PRIVATE		KVM_MEMORY_ATTRIBUTE_PRIVATE

#define CHECK(condition) check(condition, #condition, __LINE__)

static void check(bool ok, const char *condition, int line)
{
	if (ok)
		return;
	printf("line %d: %s is false (%s)\n", line, condition, strerror(errno));
	exit(1);
}

static bool in_place;
static int vm;
static struct ram ram;

static int convert(__u64 gpa, __u64 size, __u64 attributes)
{
	return in_place ? convert_in_place(&ram, gpa, size, attributes) :
			  convert_per_vm(vm, &ram, gpa, size, attributes);
}

static bool all(const char *page, char c)
{
	return page[0] == c && !memcmp(page, page + 1, PAGE - 1);
}

/* True if the kernel can read a page for the host. */
static bool readable(const char *page)
{
	static char copy[PAGE];
	int fds[2];
	bool ok;

	CHECK(!pipe(fds));
	ok = write(fds[1], page, PAGE) == PAGE && read(fds[0], copy, PAGE) == PAGE;
	close(fds[0]);
	close(fds[1]);
	return ok;
}

/* A page that a pipe refers to is in use until the pipe is gone. */
static void busy_page(char *page)
{
	struct iovec iov = { .iov_base = page, .iov_len = PAGE };
	__u64 gpa = GPA + (page - (char *)ram.mem);
	int fds[2];

	CHECK(!pipe(fds));
	CHECK(vmsplice(fds[1], &iov, 1, 0) == PAGE);
	CHECK(convert(gpa, PAGE, PRIVATE) == EAGAIN);
	CHECK(readable(page));
	close(fds[0]);
	close(fds[1]);
	CHECK(convert(gpa, PAGE, PRIVATE) == 0);
	CHECK(!readable(page));
}

int main(int argc, char **argv)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	char *page;

	CHECK(argc == 2);
	in_place = !strcmp(argv[1], "in-place");
	vm = ioctl(kvm, KVM_CREATE_VM, KVM_X86_SW_PROTECTED_VM);
	CHECK(vm >= 0);
	CHECK(!!has_in_place(vm) == in_place);
	CHECK(!!has_per_vm(vm) == !in_place);

	ram = (struct ram) { .gpa = GPA, .size = SIZE };
	CHECK(!(in_place ? create_in_place(vm, 0, &ram) : create_per_vm(vm, 0, &ram)));
	memset(ram.mem, 1, SIZE);

	/* Two pages, to private and back: the old way gives the memory back */
	page = (char *)ram.mem + 4 * PAGE;
	CHECK(convert(GPA + 4 * PAGE, 2 * PAGE, PRIVATE) == 0);
	CHECK(readable(page) == !in_place && readable(page + PAGE) == !in_place);
	CHECK(all(page - PAGE, 1) && all(page + 2 * PAGE, 1));
	CHECK(convert(GPA + 4 * PAGE, 2 * PAGE, 0) == 0);
	CHECK(all(page, in_place) && all(page + PAGE, in_place));

	if (in_place)
		busy_page(page);

	/* Not this type of VM: that they compile is all there is to see here */
	CHECK(load_snp(vm, -1, GPA, PAGE, NULL) == -1);
	CHECK(load_tdx(vm, GPA, PAGE, NULL) == -1);
	printf("%s works\n", argv[1]);
	return 0;
}

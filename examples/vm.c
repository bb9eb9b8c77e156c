// SPDX-License-Identifier: GPL-2.0
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/kvm_para.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "vm.h"

#define GIB		(1UL << 30)
#define MAX_CPUID	256
#define BUSY_TRIES	10	/* see convert_in_place() */

#define CR0_PE		(1UL << 0)
#define CR0_NE		(1UL << 5)
#define CR0_WP		(1UL << 16)
#define CR0_PG		(1UL << 31)
#define CR4_PAE		(1UL << 5)
#define EFER_LME	(1UL << 8)
#define EFER_LMA	(1UL << 10)

#define PTE_TABLE	0x3UL	/* present, writable */
#define PTE_2M_PAGE	0x83UL

/* guest-image.S */
extern const char guest_image[], guest_image_end[];

const char *mode_name(enum mode mode)
{
	static const char * const names[] = {
		[MODE_AUTO]	= "auto",
		[MODE_IN_PLACE]	= "in-place",
		[MODE_PER_VM]	= "per-vm",
	};

	return names[mode];
}

/*
 * The kernel's answer to "who tracks what is private", asked of the VM: the
 * type of the VM matters.  At most one of the two is ever on.
 */
static bool has_attribute_private(struct vm *vm, int capability)
{
	int mask = ioctl(vm->fd, KVM_CHECK_EXTENSION, capability);

	return mask > 0 && (mask & KVM_MEMORY_ATTRIBUTE_PRIVATE);
}

static bool supports(struct vm *vm, enum mode mode)
{
	return has_attribute_private(vm, mode == MODE_IN_PLACE ?
				     KVM_CAP_GUEST_MEMFD_MEMORY_ATTRIBUTES :
				     KVM_CAP_MEMORY_ATTRIBUTES);
}

static void pick_mode(struct vm *vm, enum mode wanted)
{
	if (wanted != MODE_PER_VM && supports(vm, MODE_IN_PLACE))
		vm->mode = MODE_IN_PLACE;
	else if (wanted != MODE_IN_PLACE && supports(vm, MODE_PER_VM))
		vm->mode = MODE_PER_VM;
	else if (wanted == MODE_IN_PLACE)
		die("this kernel does not convert guest_memfd in place\n"
		    "  needed: a kernel with the series, kvm loaded with gmem_in_place_conversion=1\n"
		    "  (see /sys/module/kvm/parameters/); or try --mode per-vm");
	else if (wanted == MODE_PER_VM)
		die("this kernel does not track private memory per VM\n"
		    "  needed: kvm loaded with gmem_in_place_conversion=0 and, if the kernel has\n"
		    "  the series, CONFIG_KVM_VM_MEMORY_ATTRIBUTES=y; or try --mode in-place");
	else
		die("this kernel does not track what is private, neither in guest_memfd nor per VM\n"
		    "  needed: kvm loaded with gmem_in_place_conversion=1 on a kernel with the series,\n"
		    "  or a kernel built with CONFIG_KVM_VM_MEMORY_ATTRIBUTES=y");
}

static void create_vm(struct vm *vm)
{
	int types;

	vm->kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (vm->kvm_fd < 0)
		die("cannot open /dev/kvm: %m\n"
		    "  needed: kvm_amd or kvm_intel loaded, and permission to use the device");

	types = ioctl(vm->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_VM_TYPES);
	if (types < 0 || !(types & (1 << KVM_X86_SW_PROTECTED_VM)))
		die("this kernel has no software-protected VMs\n"
		    "  needed: CONFIG_KVM_SW_PROTECTED_VM=y, and nested paging (NPT or EPT) enabled");

	vm->fd = ioctl(vm->kvm_fd, KVM_CREATE_VM, KVM_X86_SW_PROTECTED_VM);
	if (vm->fd < 0)
		die("cannot create a software-protected VM: %m");
}

static void create_guest_memfd(struct vm *vm, __u64 flags)
{
	struct kvm_create_guest_memfd args = { .size = vm->size, .flags = flags };
	int known = ioctl(vm->fd, KVM_CHECK_EXTENSION, KVM_CAP_GUEST_MEMFD_FLAGS);

	if (known < 0 || (known & flags) != flags)
		die("guest_memfd of this VM has flags %#x, needed are %#llx\n"
		    "  needed: a kernel that has all of the series", known, flags);

	vm->gmem_fd = ioctl(vm->fd, KVM_CREATE_GUEST_MEMFD, &args);
	if (vm->gmem_fd < 0)
		die("cannot create a guest_memfd of %llu bytes: %m", vm->size);
}

static void map_ram(struct vm *vm, int fd)
{
	vm->ram = mmap(NULL, vm->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (vm->ram == MAP_FAILED)
		die("cannot map %llu bytes of guest memory: %m\n  try a smaller --size", vm->size);
}

/*
 * One backing.  MMAP lets the host map the pages that are shared; INIT_SHARED
 * makes that all of them at first, so that the VMM can load the guest by
 * writing to memory.  Without it every page starts private, out of reach.
 */
static void create_memory_in_place(struct vm *vm)
{
	create_guest_memfd(vm, GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED);
	vm->shared_fd = -1;
	map_ram(vm, vm->gmem_fd);
}

/*
 * Two backings of the full size: one for what is shared, one for what is
 * private.  A page takes memory in one of them, or in both while it is being
 * carried over.  Per-VM attributes start out as shared.
 */
static void create_memory_per_vm(struct vm *vm)
{
	create_guest_memfd(vm, 0);

	vm->shared_fd = memfd_create("gmem-vmm-shared", MFD_CLOEXEC);
	if (vm->shared_fd < 0 || ftruncate(vm->shared_fd, vm->size))
		die("cannot create a memfd of %llu bytes for shared memory: %m\n"
		    "  needed: CONFIG_TMPFS=y", vm->size);
	map_ram(vm, vm->shared_fd);
}

/*
 * In place, userspace_addr is where guest_memfd itself is mapped.  The guest's
 * faults do not need it, but KVM's own accesses to guest memory (instruction
 * emulation, steal time, ...) go through it and must find the same pages.
 */
static void add_slot(struct vm *vm, __u64 gpa, __u64 size, __u64 offset, bool convertible)
{
	struct kvm_userspace_memory_region2 region = {
		.slot			= vm->nr_slots,
		.flags			= convertible ? KVM_MEM_GUEST_MEMFD : 0,
		.guest_phys_addr	= gpa,
		.memory_size		= size,
		.userspace_addr		= (__u64)vm->ram + offset,
		.guest_memfd_offset	= convertible ? offset : 0,
		.guest_memfd		= convertible ? vm->gmem_fd : 0,
	};

	if (ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION2, &region))
		die("cannot add memslot %d (gpa %#llx, %llu bytes): %m", vm->nr_slots, gpa, size);

	vm->slots[vm->nr_slots++] = (struct memslot) {
		.gpa = gpa, .size = size, .offset = offset, .convertible = convertible,
	};
}

static void add_slots(struct vm *vm)
{
	__u64 data_size = vm->size - LOW_SIZE;

	add_slot(vm, LOW_GPA, LOW_SIZE, 0, true);
	add_slot(vm, DATA_GPA, data_size, LOW_SIZE, true);

	if (vm->mode == MODE_IN_PLACE)
		return;

	/*
	 * The guest has to copy what it converts, as only it can read private
	 * memory.  A second view of the shared side lets it do so with one
	 * copy.  That is the best case for this mode: a guest that sees a page
	 * either private or shared needs a bounce buffer and two copies.
	 */
	vm->window = (data_size + GIB - 1) / GIB * GIB;
	add_slot(vm, DATA_GPA + vm->window, data_size, LOW_SIZE, false);
}

static struct memslot *find_slot(struct vm *vm, __u64 gpa)
{
	struct memslot *slot;

	for (slot = vm->slots; slot < vm->slots + vm->nr_slots; slot++) {
		if (gpa >= slot->gpa && gpa - slot->gpa < slot->size)
			return slot;
	}
	return NULL;
}

void *vm_host_address(struct vm *vm, __u64 gpa)
{
	struct memslot *slot = find_slot(vm, gpa);

	if (!slot)
		die("gpa %#llx is in no memslot", gpa);
	return vm->ram + slot->offset + (gpa - slot->gpa);
}

static void load_guest(struct vm *vm)
{
	size_t size = guest_image_end - guest_image;

	if (GUEST_GPA + size > GUEST_STACK_TOP - PAGE_SIZE)
		die("the guest's image of %zu bytes leaves no room for its stack", size);

	memcpy(vm_host_address(vm, GUEST_GPA), guest_image, size);
	vm->mailbox = vm_host_address(vm, MAILBOX_GPA);
}

/* Map all guest physical memory at its own address, with 2 MiB pages. */
static void build_page_tables(struct vm *vm)
{
	struct memslot *last = &vm->slots[vm->nr_slots - 1];
	__u64 nr_gib = (last->gpa + last->size + GIB - 1) / GIB;
	__u64 *pml4 = vm_host_address(vm, PAGE_TABLES_GPA);
	__u64 *pdpt = pml4 + 512;
	__u64 *pd = pdpt + 512;
	__u64 i;

	if (nr_gib > 512 || PAGE_TABLES_GPA + (2 + nr_gib) * PAGE_SIZE > LOW_SIZE)
		die("no room for page tables of a guest of %llu bytes\n  try a smaller --size",
		    vm->size);

	pml4[0] = (PAGE_TABLES_GPA + PAGE_SIZE) | PTE_TABLE;
	for (i = 0; i < nr_gib; i++)
		pdpt[i] = (PAGE_TABLES_GPA + (2 + i) * PAGE_SIZE) | PTE_TABLE;
	for (i = 0; i < nr_gib * 512; i++)
		pd[i] = i << 21 | PTE_2M_PAGE;
}

/*
 * Must come before the guest is told in CPUID that it has the hypercall: until
 * then KVM itself answers it with ENOSYS.
 */
static void enable_conversion_exits(struct vm *vm)
{
	struct kvm_enable_cap cap = {
		.cap	 = KVM_CAP_EXIT_HYPERCALL,
		.args[0] = 1 << KVM_HC_MAP_GPA_RANGE,
	};

	if (ioctl(vm->fd, KVM_ENABLE_CAP, &cap))
		die("cannot have KVM_HC_MAP_GPA_RANGE exit to the VMM: %m");
}

/* What KVM supports, plus the hypercall, which only the VMM can offer. */
static void set_cpuid(struct vm *vm)
{
	struct kvm_cpuid2 *cpuid;
	__u32 i;

	cpuid = calloc(1, sizeof(*cpuid) + MAX_CPUID * sizeof(cpuid->entries[0]));
	if (!cpuid)
		die("no memory for CPUID");

	cpuid->nent = MAX_CPUID;
	if (ioctl(vm->kvm_fd, KVM_GET_SUPPORTED_CPUID, cpuid))
		die("cannot get the supported CPUID: %m");

	for (i = 0; i < cpuid->nent; i++) {
		if (cpuid->entries[i].function == KVM_CPUID_FEATURES)
			cpuid->entries[i].eax |= 1 << KVM_FEATURE_HC_MAP_GPA_RANGE;
	}
	if (ioctl(vm->vcpu_fd, KVM_SET_CPUID2, cpuid))
		die("cannot set the vCPU's CPUID: %m");
	free(cpuid);
}

/* Straight into 64-bit mode, as if firmware and loader had run. */
static void set_registers(struct vm *vm)
{
	const struct kvm_segment code = {
		.limit = ~0U, .selector = 0x8, .type = 0xb,
		.present = 1, .s = 1, .l = 1, .g = 1,
	};
	const struct kvm_segment data = {
		.limit = ~0U, .selector = 0x10, .type = 0x3,
		.present = 1, .s = 1, .db = 1, .g = 1,
	};
	struct kvm_regs regs = {
		.rip	= GUEST_GPA,
		.rsp	= GUEST_STACK_TOP - 8,	/* as after a call */
		.rdi	= MAILBOX_GPA,		/* guest_main()'s argument */
		.rflags	= 0x2,
	};
	struct kvm_sregs sregs;

	if (ioctl(vm->vcpu_fd, KVM_GET_SREGS, &sregs))
		die("cannot get the vCPU's registers: %m");

	sregs.cs = code;
	sregs.ds = sregs.es = sregs.fs = sregs.gs = sregs.ss = data;
	sregs.cr0 = CR0_PE | CR0_NE | CR0_WP | CR0_PG;
	sregs.cr3 = PAGE_TABLES_GPA;
	sregs.cr4 = CR4_PAE;
	sregs.efer = EFER_LME | EFER_LMA;

	if (ioctl(vm->vcpu_fd, KVM_SET_SREGS, &sregs) || ioctl(vm->vcpu_fd, KVM_SET_REGS, &regs))
		die("cannot set the vCPU's registers: %m");
}

static void create_vcpu(struct vm *vm)
{
	int run_size = ioctl(vm->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);

	vm->vcpu_fd = ioctl(vm->fd, KVM_CREATE_VCPU, 0);
	if (vm->vcpu_fd < 0 || run_size < 0)
		die("cannot create a vCPU: %m");

	vm->run = mmap(NULL, run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vm->vcpu_fd, 0);
	if (vm->run == MAP_FAILED)
		die("cannot map the vCPU's run structure: %m");

	set_cpuid(vm);
	set_registers(vm);
}

void vm_create(struct vm *vm, enum mode wanted, __u64 size)
{
	vm->size = size;
	create_vm(vm);
	pick_mode(vm, wanted);
	if (vm->mode == MODE_IN_PLACE)
		create_memory_in_place(vm);
	else
		create_memory_per_vm(vm);
	add_slots(vm);
	load_guest(vm);
	build_page_tables(vm);
	enable_conversion_exits(vm);
	create_vcpu(vm);
}

void vm_destroy(struct vm *vm)
{
	munmap(vm->run, ioctl(vm->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0));
	munmap(vm->ram, vm->size);
	close(vm->vcpu_fd);
	close(vm->gmem_fd);
	if (vm->shared_fd >= 0)
		close(vm->shared_fd);
	close(vm->fd);
	close(vm->kvm_fd);
}

/* What cannot be mapped now is mapped when it is used, or fails then. */
void vm_prefault(struct vm *vm, __u64 gpa, __u64 size)
{
	struct kvm_pre_fault_memory range = { .gpa = gpa, .size = size };

	while (range.size) {
		if (ioctl(vm->vcpu_fd, KVM_PRE_FAULT_MEMORY, &range) && errno != EINTR)
			return;
	}
}

static void punch_hole(int fd, __u64 offset, __u64 size)
{
	if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, offset, size))
		die("cannot free %llu bytes of memory at offset %#llx: %m", size, offset);
}

/* 1 ms, then twice as long each time. */
static void back_off(int try)
{
	struct timespec delay = { .tv_nsec = 1000000L << try };

	nanosleep(&delay, NULL);
}

/*
 * Attributes belong to the memory, so the ioctl is one of guest_memfd and takes
 * offsets in the file, not guest addresses.
 *
 * EAGAIN: somebody in the host still holds a reference to the page at
 * error_offset (O_DIRECT, io_uring, vhost, VFIO, ...), and nothing has been
 * changed.  Most of these are I/O in flight and go away by themselves, hence
 * the retries.  But the guest decides what it converts and when, so they must
 * be bounded: a page that is mapped for DMA stays in use for good, and a vCPU
 * must not hang in the VMM because of it.  About a second in all, here.
 *
 * To find who it is, turn error_offset into a guest address and look it up
 * among the requests that the VMM's own devices have in flight and in its DMA
 * mappings: device back-ends have to let go before memory becomes private, as
 * they do before memory is unplugged.  For references from elsewhere, take the
 * page frame number from /proc/self/pagemap and trace page_ref:* for it.
 */
static bool convert_in_place(struct vm *vm, __u64 offset, __u64 size, __u64 attributes)
{
	int try;

	for (try = 0; ; try++) {
		struct kvm_memory_attributes2 args = {
			.offset		= offset,
			.size		= size,
			.attributes	= attributes,
		};

		if (!ioctl(vm->gmem_fd, KVM_SET_MEMORY_ATTRIBUTES2, &args))
			return true;
		if (errno != EAGAIN)
			die("cannot convert %llu bytes at offset %#llx of guest_memfd: %m",
			    size, offset);
		if (try == BUSY_TRIES)
			return false;

		vm->retries++;
		if (vm->on_busy)
			vm->on_busy(vm, args.error_offset);
		back_off(try);
	}
}

/*
 * Here attributes belong to the VM's address space, and memory is another
 * matter.  What has become shared has been copied by the guest before: free the
 * private side.  What has become private it copies next: the shared side must
 * stay until it asks for release.
 */
static void convert_per_vm(struct vm *vm, __u64 gpa, __u64 offset, __u64 size, __u64 attributes)
{
	struct kvm_memory_attributes args = {
		.address	= gpa,
		.size		= size,
		.attributes	= attributes,
	};

	if (ioctl(vm->fd, KVM_SET_MEMORY_ATTRIBUTES, &args))
		die("cannot convert %llu bytes at gpa %#llx: %m", size, gpa);
	if (!attributes)
		punch_hole(vm->gmem_fd, offset, size);
}

void vm_release_shared(struct vm *vm, __u64 gpa, __u64 size)
{
	struct memslot *slot = find_slot(vm, gpa);

	if (vm->mode != MODE_PER_VM || !slot || size > slot->size - (gpa - slot->gpa))
		die("guest released shared memory that it does not have: gpa %#llx, %llu bytes",
		    gpa, size);
	punch_hole(vm->shared_fd, slot->offset + (gpa - slot->gpa), size);

	/* This has unmapped the private side as well: it is at the same gpa. */
	vm_prefault(vm, gpa, size);
}

/*
 * Returns what to tell the guest: 0, EINVAL or EAGAIN, the only values KVM
 * accepts for every type of VM.  They are positive: KVM translates them to the
 * ABI of SNP and TDX guests; others see them as they are.
 */
static int serve_conversion(struct vm *vm, __u64 gpa, __u64 nr_pages, __u64 flags)
{
	__u64 attributes = flags & KVM_MAP_GPA_RANGE_ENCRYPTED ? KVM_MEMORY_ATTRIBUTE_PRIVATE : 0;
	struct memslot *slot = find_slot(vm, gpa);
	__u64 offset, size;

	/*
	 * All of this is the guest's word and may be anything.  A range must lie
	 * in one memslot here; a VMM whose memory is split where the guest cannot
	 * know has to do it piece by piece, checking all pieces beforehand.
	 */
	if (flags >> 5 || !slot || !slot->convertible || nr_pages > slot->size / PAGE_SIZE)
		return EINVAL;
	size = nr_pages * PAGE_SIZE;
	if (size > slot->size - (gpa - slot->gpa))
		return EINVAL;
	offset = slot->offset + (gpa - slot->gpa);

	vm->requests++;
	if (vm->mode == MODE_PER_VM)
		convert_per_vm(vm, gpa, offset, size, attributes);
	else if (!convert_in_place(vm, offset, size, attributes))
		return EAGAIN;

	/*
	 * The guest has no mappings of the range left.  It asked for private
	 * memory in order to use it: spare it an exit for every page.
	 */
	if (attributes)
		vm_prefault(vm, gpa, size);
	return 0;
}

static void serve_hypercall(struct vm *vm)
{
	struct kvm_run *run = vm->run;

	if (run->hypercall.nr != KVM_HC_MAP_GPA_RANGE)
		die("guest made hypercall %llu, which was not asked for", run->hypercall.nr);
	run->hypercall.ret = serve_conversion(vm, run->hypercall.args[0],
					      run->hypercall.args[1], run->hypercall.args[2]);
}

static void enter_guest(struct vm *vm)
{
	struct kvm_run *run = vm->run;

	while (ioctl(vm->vcpu_fd, KVM_RUN, 0)) {
		if (errno == EINTR)
			continue;
		/*
		 * The guest used memory in the state that it does not have.  A
		 * guest that relies on the VMM to convert what it touches would
		 * be served here; this one always asks.
		 */
		if (errno == EFAULT && run->exit_reason == KVM_EXIT_MEMORY_FAULT)
			die("guest fault on %s memory at gpa %#llx cannot be resolved",
			    run->memory_fault.flags & KVM_MEMORY_EXIT_FLAG_PRIVATE ?
			    "private" : "shared", run->memory_fault.gpa);
		die("cannot run the guest: %m");
	}
}

/* Run the guest until it has finished its command. */
static void run_guest(struct vm *vm)
{
	struct kvm_run *run = vm->run;

	for (;;) {
		enter_guest(vm);
		if (vm->on_exit)
			vm->on_exit(vm);

		if (run->exit_reason == KVM_EXIT_HYPERCALL)
			serve_hypercall(vm);
		else if (run->exit_reason == KVM_EXIT_IO && run->io.port == PORT_PREPARE)
			vm_prefault(vm, vm->mailbox->side_gpa + vm->window,
				    vm->mailbox->side_size);
		else if (run->exit_reason == KVM_EXIT_IO && run->io.port == PORT_RELEASE)
			vm_release_shared(vm, vm->mailbox->side_gpa, vm->mailbox->side_size);
		else if (run->exit_reason == KVM_EXIT_IO && run->io.port == PORT_DONE)
			return;
		else
			die("guest stopped with exit reason %u%s", run->exit_reason,
			    run->exit_reason == KVM_EXIT_SHUTDOWN ? " (triple fault)" : "");
	}
}

__u64 vm_command(struct vm *vm, enum guest_command command, __u64 gpa, __u64 size)
{
	vm->mailbox->command = command;
	vm->mailbox->gpa = gpa;
	vm->mailbox->size = size;
	vm->mailbox->window = vm->window;
	run_guest(vm);
	return vm->mailbox->result;
}

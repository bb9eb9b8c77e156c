// SPDX-License-Identifier: GPL-2.0
/*
 * Boot Linux: load it by writing to memory, make that private where it is, and
 * run it.  What it is given of a PC is little: KVM's interrupt controllers and
 * timer, a serial port to write to, and the device of device.c.
 */
#define _GNU_SOURCE
#include <asm/bootparam.h>
#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "device.h"
#include "linux.h"
#include "probe.h"
#include "report.h"
#include "stats.h"
#include "trace.h"
#include "vm.h"

#define MIB		(1UL << 20)

/* Memory: the low slot, then up to a hole, then the rest from 4 GiB on. */
#define LEAST_SIZE	(96 * MIB)
#define HIGH_GPA	0x100000000UL
#define HIGH_SIZE	(32 * MIB)
#define LOWEST_RAM	0x10000UL	/* of the low slot, Linux is told of these */
#define LOW_RAM_END	0x9f000UL	/*   for the code that starts other vCPUs */

/* What is in the low slot, besides. */
#define ZERO_PAGE_GPA	0x1000UL
#define ARGUMENTS_GPA	0x2000UL
#define PML4_GPA	0x4000UL
#define PDPT_GPA	0x5000UL
#define PD_GPA		0x6000UL
#define MP_TABLE_GPA	0xf0000UL

#define PTE_TABLE	0x63UL		/* present, writable, accessed, dirty */
#define PTE_2M_PAGE	0xe3UL

/* Where Linux is mapped, and where that is in its page tables. */
#define KERNEL_MAP	0xffffffff80000000UL
#define KERNEL_PML4E	511
#define KERNEL_PDPTE	510

#define COM1		0x3f8
#define COM1_LCR	(COM1 + 3)
#define COM1_LSR	(COM1 + 5)
#define LCR_DLAB	0x80		/* COM1 is the divisor now */
#define LSR_READY	0x60
#define CMOS_DATA	0x71

struct linux_guest {
	struct vm vm;
	struct device device;
	const struct linux_options *options;

	const char *kernel;	/* the file */
	size_t kernel_size;
	__u64 entry;
	__u64 initrd_gpa;
	__u64 initrd_size;

	/* Ports. */
	pthread_mutex_t port_lock;
	__u32 pfn;
	__u32 nr_pages;
	__u32 result;
	__u8 lcr;
	char line[128];
	int line_length;

	sem_t finished;
	__u32 errors;		/* what the guest said at the end */
	__u64 private_at_start;
	__u64 private_with_ring;
	__u64 launch_ns;
	__u64 stepped_over;
};

static const char *map_file(const char *path, size_t *size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	struct stat stat;
	void *data;

	if (fd < 0 || fstat(fd, &stat))
		die("cannot open %s: %m", path);
	*size = stat.st_size;
	data = mmap(NULL, *size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (data == MAP_FAILED)
		die("cannot map %s: %m", path);
	close(fd);
	return data;
}

/* A part of the kernel's file, or nothing good. */
static const void *file_part(struct linux_guest *guest, __u64 offset, __u64 size)
{
	if (offset > guest->kernel_size || size > guest->kernel_size - offset)
		die("%s is not complete", guest->options->kernel);
	return guest->kernel + offset;
}

static void open_kernel(struct linux_guest *guest)
{
	const Elf64_Ehdr *elf;

	guest->kernel = map_file(guest->options->kernel, &guest->kernel_size);
	elf = file_part(guest, 0, sizeof(*elf));
	if (memcmp(elf->e_ident, ELFMAG, SELFMAG) || elf->e_machine != EM_X86_64 ||
	    elf->e_type != ET_EXEC)
		die("%s is not a vmlinux for x86-64", guest->options->kernel);
	guest->entry = elf->e_entry;
}

static void load_kernel(struct linux_guest *guest)
{
	const Elf64_Ehdr *elf = file_part(guest, 0, sizeof(*elf));
	const Elf64_Phdr *segment = file_part(guest, elf->e_phoff,
					      elf->e_phnum * sizeof(*segment));
	int i;

	for (i = 0; i < elf->e_phnum; i++, segment++) {
		if (segment->p_type != PT_LOAD)
			continue;
		memcpy(vm_host_address(&guest->vm, segment->p_paddr, segment->p_memsz),
		       file_part(guest, segment->p_offset, segment->p_filesz),
		       segment->p_filesz);
	}
}

/* At the end of the memory below the hole. */
static void load_initrd(struct linux_guest *guest)
{
	struct memslot *slot = &guest->vm.slots[1];
	const char *data;
	size_t size;

	data = map_file(guest->options->initrd, &size);
	guest->initrd_size = size;
	guest->initrd_gpa = (slot->gpa + slot->size - size) & ~(PAGE_SIZE - 1);
	memcpy(vm_host_address(&guest->vm, guest->initrd_gpa, size), data, size);
	munmap((void *)data, size);
}

/* Memory at its own address, and where Linux is linked to be: the first GiB. */
static void build_page_tables(struct linux_guest *guest)
{
	__u64 *pml4 = vm_host_address(&guest->vm, PML4_GPA, 3 * PAGE_SIZE);
	__u64 *pdpt = pml4 + 512, *pd = pdpt + 512, i;

	pml4[0] = pml4[KERNEL_PML4E] = PDPT_GPA | PTE_TABLE;
	pdpt[0] = pdpt[KERNEL_PDPTE] = PD_GPA | PTE_TABLE;
	for (i = 0; i < 512; i++)
		pd[i] = i << 21 | PTE_2M_PAGE;
}

/*
 * KVM reads guest memory by itself only to emulate an instruction: where the
 * processor does not tell it all, as emulated ones don't (AMD's NRIPS and decode
 * assists), and for MMIO.  It then walks the page tables and reads the code,
 * both through userspace_addr, and private memory cannot be read there.
 *
 * But nothing says that guest_memfd must be mapped there.  What is, is seen by
 * nobody but KVM: the code of the kernel, from its file, which is no secret;
 * and instead of all other memory, a page that leads to page tables in the low
 * slot that map the kernel, whatever kernel page table KVM takes it for.  So all
 * of Linux can be private, page tables of its processes included.
 *
 * (User space has no part in this: see step_over().)
 */
static void *create_view(struct linux_guest *guest, __u64 gpa, __u64 size)
{
	const Elf64_Ehdr *elf = file_part(guest, 0, sizeof(*elf));
	const Elf64_Shdr *section = file_part(guest, elf->e_shoff,
					      elf->e_shnum * sizeof(*section));
	int fd = memfd_create("gmem-vmm-view", MFD_CLOEXEC), i;
	int kernel_fd = open(guest->options->kernel, O_RDONLY | O_CLOEXEC);
	__u64 page[512] = {
		[KERNEL_PML4E] = PDPT_GPA | PTE_TABLE,
		[KERNEL_PDPTE] = PD_GPA | PTE_TABLE,
	};
	__u64 done;
	void *view;

	/* Few large mappings of the same 2 MiB rather than one for each page. */
	for (done = 0; done < 2 * MIB; done += PAGE_SIZE) {
		if (pwrite(fd, page, PAGE_SIZE, done) != PAGE_SIZE)
			die("cannot write what KVM is to see: %m");
	}
	view = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	for (done = 0; view != MAP_FAILED && done < size; done += 2 * MIB) {
		if (mmap(view + done, 2 * MIB, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
			 fd, 0) == MAP_FAILED)
			view = MAP_FAILED;
	}

	for (i = 0; view != MAP_FAILED && i < elf->e_shnum; i++, section++) {
		__u64 start = (section->sh_addr - KERNEL_MAP) & ~(PAGE_SIZE - 1);
		__u64 offset = section->sh_offset & ~(PAGE_SIZE - 1);
		__u64 length = section->sh_offset + section->sh_size - offset;

		if (!(section->sh_flags & SHF_EXECINSTR) || start < gpa || start - gpa > size ||
		    length > size - (start - gpa))
			continue;
		if (mmap(view + (start - gpa), length, PROT_READ, MAP_PRIVATE | MAP_FIXED,
			 kernel_fd, offset) == MAP_FAILED)
			view = MAP_FAILED;
	}
	if (view == MAP_FAILED)
		die("cannot map what KVM is to see of guest memory: %m");
	close(kernel_fd);
	close(fd);
	return view;
}

static void create_memory(struct linux_guest *guest)
{
	__u64 middle = guest->options->size - LOW_SIZE - HIGH_SIZE;
	struct vm *vm = &guest->vm;

	vm_add_slot(vm, LOW_GPA, LOW_SIZE, 0, NULL);
	vm_add_slot(vm, LOW_SIZE, middle, LOW_SIZE + HIGH_SIZE,
		    create_view(guest, LOW_SIZE, middle));
	vm_add_slot(vm, HIGH_GPA, HIGH_SIZE, LOW_SIZE, create_view(guest, HIGH_GPA, HIGH_SIZE));
}

static void add_ram(struct boot_params *params, __u64 gpa, __u64 size)
{
	params->e820_table[params->e820_entries++] = (struct boot_e820_entry) {
		.addr = gpa, .size = size, .type = 1,
	};
}

/* See Documentation/arch/x86/boot.rst, "64-bit boot protocol". */
static void build_zero_page(struct linux_guest *guest)
{
	struct boot_params *params = vm_host_address(&guest->vm, ZERO_PAGE_GPA, sizeof(*params));
	char *arguments = vm_host_address(&guest->vm, ARGUMENTS_GPA, PAGE_SIZE);
	struct memslot *slots = guest->vm.slots;

	/* Under emulation Linux may be too slow to find the TSC's frequency itself. */
	snprintf(arguments, PAGE_SIZE,
		 "loglevel=3 earlycon=uart8250,io,0x3f8 acpi=off pci=off noapic "
		 "tsc=reliable tsc_early_khz=%d highres=off nohz=off clearcpuid=xsave "
		 "swiotlb=noforce reboot=t panic=-1 hugepages=16 rdinit=/init %s",
		 ioctl(guest->vm.vcpus[0].fd, KVM_GET_TSC_KHZ),
		 guest->options->arguments ?: "");

	params->hdr.boot_flag = 0xaa55;
	params->hdr.header = 0x53726448;	/* "HdrS" */
	params->hdr.type_of_loader = 0xff;
	params->hdr.loadflags = LOADED_HIGH;
	params->hdr.cmd_line_ptr = ARGUMENTS_GPA;
	params->hdr.cmdline_size = PAGE_SIZE - 1;
	params->hdr.ramdisk_image = guest->initrd_gpa;
	params->hdr.ramdisk_size = guest->initrd_size;
	add_ram(params, LOWEST_RAM, LOW_RAM_END - LOWEST_RAM);
	add_ram(params, slots[1].gpa, slots[1].size);
	add_ram(params, slots[2].gpa, slots[2].size);
}

static void set_checksum(void *table, size_t size, __u8 *checksum)
{
	__u8 *bytes = table, sum = 0;

	while (size--)
		sum += *bytes++;
	*checksum -= sum;
}

/*
 * Which processors there are, by Intel's MultiProcessor Specification: the least
 * of all ways to say it.
 */
static void build_mp_table(struct linux_guest *guest)
{
	struct mp_table {
		struct {
			char signature[4];
			__u32 table;
			__u8 length, revision, checksum, features[5];
		} pointer;
		struct {
			char signature[4];
			__u16 length;
			__u8 revision, checksum;
			char oem[8], product[12];
			__u32 oem_table;
			__u16 oem_size, nr_entries;
			__u32 local_apic, reserved;
		} header;
		struct {
			__u8 type, apic_id, apic_version, flags;
			__u32 signature, features, reserved[2];
		} processors[MAX_VCPUS];
	} *mp = vm_host_address(&guest->vm, MP_TABLE_GPA, sizeof(*mp));
	int nr = guest->options->nr_vcpus, i;

	memcpy(mp->pointer.signature, "_MP_", 4);
	mp->pointer.table = MP_TABLE_GPA + offsetof(struct mp_table, header);
	mp->pointer.length = 1;
	mp->pointer.revision = 4;
	set_checksum(&mp->pointer, sizeof(mp->pointer), &mp->pointer.checksum);

	for (i = 0; i < nr; i++) {
		mp->processors[i].apic_id = i;
		mp->processors[i].apic_version = 0x14;
		mp->processors[i].flags = 1 | (i ? 0 : 2);	/* enabled, boot processor */
	}
	memcpy(mp->header.signature, "PCMP", 4);
	mp->header.length = sizeof(mp->header) + nr * sizeof(mp->processors[0]);
	mp->header.revision = 4;
	mp->header.nr_entries = nr;
	mp->header.local_apic = 0xfee00000;
	set_checksum(&mp->header, mp->header.length, &mp->header.checksum);
}

/* Lines of the guest's console, marked as such. */
static void print_character(struct linux_guest *guest, char character)
{
	if (character == '\r')
		return;
	if (character != '\n')
		guest->line[guest->line_length++] = character;
	if (character == '\n' || guest->line_length == sizeof(guest->line)) {
		printf("guest| %.*s\n", guest->line_length, guest->line);
		fflush(stdout);
		guest->line_length = 0;
	}
}

static void finish(struct linux_guest *guest)
{
	sem_post(&guest->finished);
	vm_stop(&guest->vm);
}

static void write_port(struct vcpu *vcpu, __u16 port, __u32 value)
{
	struct linux_guest *guest = vcpu->vm->owner;
	struct gmem_state state;

	switch (port) {
	case COM1:
		if (!(guest->lcr & LCR_DLAB))
			print_character(guest, value);
		break;
	case COM1_LCR:
		guest->lcr = value;
		break;
	case PORT_CONVERT_PFN:
		guest->pfn = value;
		break;
	case PORT_CONVERT_PAGES:
		guest->nr_pages = value;
		break;
	case PORT_RING:
		trace_phase("user space");
		guest->result = device_set_ring(&guest->device, value * PAGE_SIZE);
		if (stats_state(getpid(), guest->vm.gmem_fd, &state))
			guest->private_with_ring = state.private;
		break;
	case PORT_EXIT:
		guest->errors = value;
		finish(guest);
		break;
	}
}

/* What is not there reads as all ones, and the clock as stopped. */
static __u32 read_port(struct linux_guest *guest, __u16 port)
{
	switch (port) {
	case COM1_LSR:
		return LSR_READY;
	case COM1_LCR:
		return guest->lcr;
	case CMOS_DATA:
		return 0;
	case PORT_CONVERT:
	case PORT_RING:
		return guest->result;
	}
	return ~0U;
}

static bool serve_io(struct vcpu *vcpu, __u16 port, void *data, int size, bool is_write)
{
	struct linux_guest *guest = vcpu->vm->owner;
	__u32 value = 0;

	/* Not under the lock: it takes its time, and has locks of its own. */
	if (is_write && port == PORT_CONVERT) {
		memcpy(&value, data, size);
		guest->result = vcpu_convert(vcpu, guest->pfn * PAGE_SIZE, guest->nr_pages,
					     value);
		return true;
	}

	pthread_mutex_lock(&guest->port_lock);
	if (is_write) {
		memcpy(&value, data, size);
		write_port(vcpu, port, value);
	} else {
		value = read_port(guest, port);
		memcpy(data, &value, size);
	}
	pthread_mutex_unlock(&guest->port_lock);
	return true;
}

/*
 * User space executed CPUID or PAUSE, which takes two bytes, KVM has done its
 * part, and only wants to know where the next instruction is.
 */
static bool step_over(struct vcpu *vcpu)
{
	struct linux_guest *guest = vcpu->vm->owner;
	struct kvm_sregs sregs;
	struct kvm_regs regs;

	if (ioctl(vcpu->fd, KVM_GET_SREGS, &sregs) || sregs.ss.dpl != 3 ||
	    ioctl(vcpu->fd, KVM_GET_REGS, &regs))
		return false;
	regs.rip += 2;
	guest->stepped_over++;
	return !ioctl(vcpu->fd, KVM_SET_REGS, &regs);
}

static void *vcpu_thread(void *vcpu)
{
	vcpu_run(vcpu);
	return NULL;
}

static void create_machine(struct linux_guest *guest)
{
	struct kvm_pit_config pit = { .flags = KVM_PIT_SPEAKER_DUMMY };
	struct vm *vm = &guest->vm;

	if (ioctl(vm->fd, KVM_CREATE_IRQCHIP) || ioctl(vm->fd, KVM_CREATE_PIT2, &pit))
		die("cannot create interrupt controllers and timer: %m");
	create_memory(guest);
	/*
	 * The host's frequency, as it is known now.  The default is that of the time when
	 * KVM was loaded.  If the host has measured it better since then, and can't
	 * scale, KVM would fail to set the default, unseen, and the guest's TSC stand still.
	 */
	if (ioctl(vm->fd, KVM_SET_TSC_KHZ, 0))
		die("cannot set the frequency of the guest's TSC: %m");

	vm_create_vcpus(vm, guest->options->nr_vcpus);
	device_create(&guest->device, vm);
}

/*
 * Write everything to where the guest is to find it, while all is still shared,
 * and then make it private, there.
 */
static void launch(struct linux_guest *guest)
{
	struct kvm_regs regs = {
		.rip = guest->entry, .rsi = ZERO_PAGE_GPA, .rflags = 0x2,
	};
	struct vm *vm = &guest->vm;
	__u64 start;

	load_kernel(guest);
	load_initrd(guest);
	build_page_tables(guest);
	build_mp_table(guest);
	build_zero_page(guest);

	start = probe_clock_ns();
	vm_make_private(vm, vm->slots[1].gpa, vm->slots[1].size);
	vm_make_private(vm, vm->slots[2].gpa, vm->slots[2].size);
	guest->launch_ns = probe_clock_ns() - start;
	guest->private_at_start = vm_private_bytes(vm);

	vcpu_set_long_mode(&vm->vcpus[0], &regs, PML4_GPA);	/* it starts the others */
}

/* Until it is done, or its time is up. */
static void wait_for_guest(struct linux_guest *guest)
{
	struct timespec next;
	struct kvm_regs regs;
	unsigned int ticks;
	int i;

	clock_gettime(CLOCK_REALTIME, &next);
	for (ticks = 0; ticks < guest->options->seconds * 10; ticks++) {
		next.tv_nsec += 100000000;
		next.tv_sec += next.tv_nsec / 1000000000;
		next.tv_nsec %= 1000000000;
		if (!sem_timedwait(&guest->finished, &next))
			return;
		trace_memory(probe_file_memory(guest->vm.gmem_fd), 0);
	}
	vm_stop(&guest->vm);
	vm_join_vcpus(&guest->vm);
	for (i = 0; i < guest->vm.nr_vcpus; i++) {
		if (!ioctl(guest->vm.vcpus[i].fd, KVM_GET_REGS, &regs))
			printf("vCPU %d is at RIP %#llx\n", i, regs.rip);
	}
	die("Linux was not done after %u s\n"
	    "  --append loglevel=8 shows how far it comes, --seconds N gives it more time",
	    guest->options->seconds);
}

static void trace_conversion(struct vm *vm, __u64 offset, __u64 size, bool to_private)
{
	(void)vm;
	trace_convert(offset, size, to_private);
}

static void report_device(struct device *device)
{
	char wanted[32];

	report_heading("the ring, and what is not shared");
	report_note("requests by the ring", "%llu, %.1f MiB of disk read", device->requests,
		    mib(device->bytes_read));
	report_check(device->bytes_exchanged && !device->bad_words,
		     "guest's words that the host reads", "0 wrong", "%llu wrong of %llu",
		     device->bad_words, device->bytes_exchanged / 8);
	snprintf(wanted, sizeof(wanted), "%llu x SIGBUS", device->touches);
	report_check(device->touches && device->sigbus == device->touches,
		     "host reads and writes private memory", wanted, "%llu x SIGBUS",
		     device->sigbus);
	snprintf(wanted, sizeof(wanted), "%llu x EFAULT", device->touches / 2);
	report_check(device->efault == device->touches / 2, "system calls on private memory",
		     wanted, "%llu x EFAULT", device->efault);
	report_check(device->refused, "buffers that are not shared", "refused", "refused %llu x",
		     device->refused);
}

static void report(struct linux_guest *guest)
{
	struct vm *vm = &guest->vm;
	char wanted[32];

	report_heading("Linux, all private but what it asks for");
	report_note("launched by writing in place", "%.0f MiB, then private in %.1f ms",
		    mib(guest->private_at_start), guest->launch_ns / 1e6);
	snprintf(wanted, sizeof(wanted), "%.2f MiB", mib(vm->size - LOW_SIZE - 2 * PAGE_SIZE));
	report_check(guest->private_with_ring == vm->size - LOW_SIZE - 2 * PAGE_SIZE,
		     "private when the ring is up", wanted, "%.2f MiB",
		     mib(guest->private_with_ring));
	report_check(!guest->errors, "guest's own checks", "0 errors", "%u errors",
		     guest->errors);
	report_check(vm->requests && !vm->given_up, "conversions it asked for", "all done",
		     "%llu done, %llu given up", vm->requests, vm->given_up);
	report_note("  nonsense it asked for", "%llu x EINVAL", vm->refused);
	report_note("memory", "%.1f MiB, in one backing", mib(probe_file_memory(vm->gmem_fd)));
	report_note("instructions KVM could not step over", "%llu", guest->stepped_over);
	report_device(&guest->device);
	stats_report(vm);
}

void linux_run(const struct linux_options *options)
{
	static struct linux_guest guest;
	struct vm *vm = &guest.vm;

	if (options->size < LEAST_SIZE || options->size > HIGH_GPA / 4)
		die("--size: Linux needs 96M to 1G here");
	probe_init();
	guest.options = options;
	vm->owner = &guest;
	vm->on_io = serve_io;
	vm->on_emulation_failure = step_over;
	vm->on_converted = trace_conversion;
	pthread_mutex_init(&guest.port_lock, NULL);
	sem_init(&guest.finished, 0, 0);

	open_kernel(&guest);
	vm_create(vm, MODE_IN_PLACE, options->size);
	printf("gmem-vmm: Linux in a guest of %.0f MiB, %d vCPUs\n", mib(options->size),
	       options->nr_vcpus);
	fflush(stdout);
	if (options->trace)
		trace_open(options->trace, "linux", options->size);
	create_machine(&guest);
	launch(&guest);
	trace_memory(probe_file_memory(vm->gmem_fd), 0);
	trace_phase("boot");
	vm_start_vcpus(vm, vcpu_thread);
	wait_for_guest(&guest);
	vm_join_vcpus(vm);
	device_destroy(&guest.device);
	trace_close();
	report(&guest);
	vm_destroy(vm);
}

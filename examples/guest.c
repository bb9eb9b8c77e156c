// SPDX-License-Identifier: GPL-2.0
/*
 * The guest: does what the mailbox says, over and over.  It is entered in
 * 64-bit mode with all memory mapped at its physical address, and without an
 * IDT: an exception is a triple fault, which the VMM reports.
 */
#include <linux/kvm_para.h>

#include "guest-abi.h"

#define PAGE_SIZE	4096UL
#define CPUID_AUTH	0x68747541	/* "Auth"enticAMD */
#define CPUID_HYGO	0x6f677948	/* "Hygo"nGenuine */
#define CPUID_KVMK	0x4b4d564b	/* "KVMK"VMKVM */

static inline void out32(__u16 port, __u32 value)
{
	asm volatile("outl %0, %1" : : "a"(value), "Nd"(port) : "memory");
}

static inline void cpuid(__u32 leaf, __u32 *eax, __u32 *ebx)
{
	__u32 ecx = 0, edx;

	*eax = leaf;
	asm volatile("cpuid" : "+a"(*eax), "=b"(*ebx), "+c"(ecx), "=d"(edx));
}

static inline void copy(__u64 dst, __u64 src, __u64 size)
{
	__u64 words = size / 8;

	asm volatile("rep movsq" : "+D"(dst), "+S"(src), "+c"(words) : : "memory");
}

static int can_convert(void)
{
	__u32 eax, ebx;

	cpuid(KVM_CPUID_SIGNATURE, &eax, &ebx);
	if (ebx != CPUID_KVMK || eax < KVM_CPUID_FEATURES)
		return 0;
	cpuid(KVM_CPUID_FEATURES, &eax, &ebx);
	return eax & (1 << KVM_FEATURE_HC_MAP_GPA_RANGE);
}

/*
 * Each vendor has its own instruction.  KVM can patch the wrong one, but that
 * needs code that is writable for KVM, which private memory is not.
 */
static __u64 hypercall3(__u64 nr, __u64 a0, __u64 a1, __u64 a2)
{
	__u32 max_leaf, vendor;
	__u64 ret;

	cpuid(0, &max_leaf, &vendor);
	if (vendor == CPUID_AUTH || vendor == CPUID_HYGO)
		asm volatile("vmmcall" : "=a"(ret)
			     : "a"(nr), "b"(a0), "c"(a1), "d"(a2) : "memory");
	else
		asm volatile("vmcall" : "=a"(ret)
			     : "a"(nr), "b"(a0), "c"(a1), "d"(a2) : "memory");
	return ret;
}

static void tell_side(struct guest_mailbox *mb, __u16 port, __u64 gpa, __u64 size)
{
	mb->side_gpa = gpa;
	mb->side_size = size;
	out32(port, 0);
}

/*
 * Where contents do not survive, the shared side must be copied after the
 * private side has become visible, and the private side before it goes.  Both
 * sides hold the data until the VMM has been told that one is not needed.
 */
static __u64 convert_one(struct guest_mailbox *mb, __u64 gpa, __u64 size, int private)
{
	__u64 ret;

	if (mb->window && !private) {
		tell_side(mb, PORT_PREPARE, gpa, size);
		copy(gpa + mb->window, gpa, size);
		mb->copied += size;
	}

	ret = hypercall3(KVM_HC_MAP_GPA_RANGE, gpa, size / PAGE_SIZE,
			 private ? KVM_MAP_GPA_RANGE_ENCRYPTED : KVM_MAP_GPA_RANGE_DECRYPTED);
	if (ret)
		return ret;

	if (mb->window && private) {
		copy(gpa, gpa + mb->window, size);
		mb->copied += size;
		tell_side(mb, PORT_RELEASE, gpa, size);
	}
	return 0;
}

static __u64 convert(struct guest_mailbox *mb, int private)
{
	__u64 done, size, ret;

	if (!can_convert())
		return GUEST_NO_HYPERCALL;

	for (done = 0; done < mb->size; done += size) {
		size = mb->size - done;
		if (size > mb->request_size)
			size = mb->request_size;
		ret = convert_one(mb, mb->gpa + done, size, private);
		if (ret)
			return ret;
	}
	return GUEST_OK;
}

static void touch(__u64 gpa, __u64 size)
{
	__u64 end = gpa + size;

	for (; gpa < end; gpa += PAGE_SIZE)
		(void)*(volatile __u64 *)gpa;
}

__attribute__((noreturn, section(".text.entry")))
void guest_main(struct guest_mailbox *mb)
{
	for (;;) {
		__u64 *words = (__u64 *)mb->gpa;

		mb->result = GUEST_OK;
		switch (mb->command) {
		case GUEST_TO_PRIVATE:
		case GUEST_TO_SHARED:
			mb->result = convert(mb, mb->command == GUEST_TO_PRIVATE);
			break;
		case GUEST_TOUCH:
			touch(mb->gpa, mb->size);
			break;
		case GUEST_FILL:
			fill_pattern(words, mb->gpa, mb->size, mb->seed);
			break;
		case GUEST_CHECK:
			mb->bad_words = check_pattern(words, mb->gpa, mb->size, mb->seed,
						      &mb->first_bad_gpa);
			break;
		}
		out32(PORT_DONE, 0);
	}
}

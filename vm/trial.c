// SPDX-License-Identifier: GPL-2.0-only
/*
 * Does KVM really run a guest here?  Runs one that halts at once.  Used to find
 * out whether the host offers nested virtualization before relying on it.
 */
#include <err.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#define GUEST_SIZE	0x1000

int main(void)
{
	int kvm, vm, vcpu, run_size;
	struct kvm_sregs sregs;
	struct kvm_run *run;
	unsigned char *code;

	kvm = open("/dev/kvm", O_RDWR);
	if (kvm < 0)
		err(1, "/dev/kvm");
	vm = ioctl(kvm, KVM_CREATE_VM, 0);
	vcpu = ioctl(vm, KVM_CREATE_VCPU, 0);
	run_size = ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	run = mmap(NULL, run_size, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu, 0);
	code = mmap(NULL, GUEST_SIZE, PROT_READ | PROT_WRITE,
		    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (vm < 0 || vcpu < 0 || run == MAP_FAILED || code == MAP_FAILED)
		err(1, "cannot create a guest");

	code[0] = 0xf4;		/* hlt, in real mode, at address 0 */
	if (ioctl(vm, KVM_SET_USER_MEMORY_REGION,
		  &(struct kvm_userspace_memory_region){
			.memory_size = GUEST_SIZE,
			.userspace_addr = (unsigned long)code,
		  }))
		err(1, "KVM_SET_USER_MEMORY_REGION");
	if (ioctl(vcpu, KVM_GET_SREGS, &sregs))
		err(1, "KVM_GET_SREGS");
	sregs.cs.base = 0;
	sregs.cs.selector = 0;
	if (ioctl(vcpu, KVM_SET_SREGS, &sregs) ||
	    ioctl(vcpu, KVM_SET_REGS, &(struct kvm_regs){ .rflags = 2 }))
		err(1, "cannot set registers");
	if (ioctl(vcpu, KVM_RUN, 0))
		err(1, "KVM_RUN");
	if (run->exit_reason != KVM_EXIT_HLT)
		errx(1, "exit reason %u, not HLT", run->exit_reason);
	return 0;
}

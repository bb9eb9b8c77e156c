// SPDX-License-Identifier: GPL-2.0-only
/*
 * What programs of 32 and of 64 bits rely on: compiled by scripts/check.sh, with
 * exported headers, for both.
 */
#include <stddef.h>
#include <linux/kvm.h>

#define SAME(type, member, where)	\
	_Static_assert(offsetof(struct type, member) == (where), #type "." #member)

_Static_assert(sizeof(struct kvm_memory_attributes2) == 128, "size");
_Static_assert(_Alignof(struct kvm_memory_attributes2) <= 8, "alignment");
SAME(kvm_memory_attributes2, address, 0);
SAME(kvm_memory_attributes2, offset, 0);
SAME(kvm_memory_attributes2, size, 8);
SAME(kvm_memory_attributes2, attributes, 16);
SAME(kvm_memory_attributes2, flags, 24);
SAME(kvm_memory_attributes2, error_offset, 32);
SAME(kvm_memory_attributes2, reserved, 40);

/* The old struct is the beginning of the new one. */
SAME(kvm_memory_attributes, address, 0);
SAME(kvm_memory_attributes, size, 8);
SAME(kvm_memory_attributes, attributes, 16);
SAME(kvm_memory_attributes, flags, 24);

_Static_assert(KVM_SET_MEMORY_ATTRIBUTES2 == 0xc080aed2, "number of the ioctl");
_Static_assert(KVM_CAP_GUEST_MEMFD_MEMORY_ATTRIBUTES == 252, "number of the capability");
_Static_assert(KVM_MEMORY_ATTRIBUTE_PRIVATE == 1ULL << 3, "attribute");
_Static_assert(GUEST_MEMFD_FLAG_INIT_SHARED == 1ULL << 1, "flag");

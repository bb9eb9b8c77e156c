// SPDX-License-Identifier: GPL-2.0
/*
 * A device like those of virtio: requests of the guest come by a ring in memory
 * that the guest keeps shared, and so do the buffers they are about.  It runs in
 * a thread of its own, so it uses memory while vCPUs convert memory.
 *
 * Everything in the ring is the guest's word, and may change at any moment.  So
 * an entry is copied before it is looked at.  And the memory it names may be
 * private, or be about to become so: hence vm_get_shared() for every access, not
 * once when the guest said where the ring is.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "device.h"
#include "probe.h"

#define MAX_BUFFER	0x200000UL

static __u16 read_disk(struct device *device, const struct ring_entry *entry, __u64 *buffer)
{
	fill_pattern(buffer, entry->seed * SECTOR_SIZE, entry->size, DISK_SEED);
	device->bytes_read += entry->size;
	return RING_OK;
}

static __u16 exchange(struct device *device, const struct ring_entry *entry, __u64 *buffer)
{
	__u64 bad = 0, first;

	if (entry->operation == RING_FILL)
		fill_pattern(buffer, entry->gpa, entry->size, entry->seed);
	else
		bad = check_pattern(buffer, entry->gpa, entry->size, entry->seed, &first);
	device->bytes_exchanged += entry->size;
	device->bad_words += bad;
	return bad ? RING_BAD : RING_OK;
}

/*
 * What a device must never do, because the guest asks for it as a test: touch
 * memory that is private.  There is no harm in it: all it gets is signals.
 */
static __u16 intrude(struct device *device, const struct ring_entry *entry)
{
	__u64 *buffer = vm_find(device->vm, entry->gpa, entry->size);
	__u64 i, value, sigbus = 0, efault = 0, pages = entry->size / PAGE_SIZE;

	if (!buffer)
		return RING_REFUSED;
	for (i = 0; i < pages; i++) {
		__u64 *word = buffer + i * PAGE_SIZE / 8;

		sigbus += !probe_read(word, &value);
		sigbus += !probe_write(word, ~0ULL);
		efault += probe_syscall(word) == EFAULT;
	}
	device->touches += 2 * pages;
	device->sigbus += sigbus;
	device->efault += efault;
	return sigbus == 2 * pages && efault == pages ? RING_OK : RING_BAD;
}

static __u16 serve(struct device *device, const struct ring_entry *entry)
{
	__u16 result = RING_REFUSED;
	__u64 *buffer;

	if (entry->gpa % PAGE_SIZE || entry->size % PAGE_SIZE || entry->size > MAX_BUFFER)
		return RING_REFUSED;
	if (entry->operation == RING_INTRUDE)
		return intrude(device, entry);

	buffer = vm_get_shared(device->vm, entry->gpa, entry->size);
	if (!buffer)
		return RING_REFUSED;
	if (entry->operation == RING_READ)
		result = read_disk(device, entry, buffer);
	else if (entry->operation == RING_FILL || entry->operation == RING_CHECK)
		result = exchange(device, entry, buffer);
	vm_put_shared(device->vm);
	return result;
}

/* False if there are no more requests, or there is no ring. */
static bool serve_next(struct device *device)
{
	__u32 done = device->requests;
	struct ring_entry entry;
	struct ring *ring;
	bool posted;

	ring = vm_get_shared(device->vm, device->ring_gpa, PAGE_SIZE);
	if (!ring)
		return false;
	posted = __atomic_load_n(&ring->posted, __ATOMIC_ACQUIRE) != done;
	entry = *(volatile struct ring_entry *)&ring->entries[done % RING_ENTRIES];
	vm_put_shared(device->vm);
	if (!posted)
		return false;

	entry.result = serve(device, &entry);
	device->requests++;
	device->refused += entry.result == RING_REFUSED;

	ring = vm_get_shared(device->vm, device->ring_gpa, PAGE_SIZE);
	if (!ring)
		return false;
	ring->entries[done % RING_ENTRIES].result = entry.result;
	__atomic_store_n(&ring->done, done + 1, __ATOMIC_RELEASE);
	vm_put_shared(device->vm);
	return true;
}

static bool stopping(struct device *device)
{
	return __atomic_load_n(&device->stopping, __ATOMIC_SEQ_CST);
}

static void *device_thread(void *argument)
{
	struct device *device = argument;
	uint64_t kicks;

	while (read(device->kick_fd, &kicks, sizeof(kicks)) == sizeof(kicks) &&
	       !stopping(device)) {
		while (!stopping(device) && serve_next(device))
			;
	}
	return NULL;
}

int device_set_ring(struct device *device, __u64 gpa)
{
	if (!gpa || !vm_get_shared(device->vm, gpa, PAGE_SIZE))
		return EINVAL;
	device->ring_gpa = gpa;
	vm_put_shared(device->vm);
	return 0;
}

/* Kicks go from KVM to the thread, without an exit to the VMM. */
void device_create(struct device *device, struct vm *vm)
{
	struct kvm_ioeventfd kick = {
		.addr = PORT_KICK, .len = 4, .flags = KVM_IOEVENTFD_FLAG_PIO,
	};

	device->vm = vm;
	device->kick_fd = eventfd(0, EFD_CLOEXEC);
	kick.fd = device->kick_fd;
	if (device->kick_fd < 0 || ioctl(vm->fd, KVM_IOEVENTFD, &kick))
		die("cannot have a port signal an eventfd: %m\n  needed: CONFIG_EVENTFD=y");
	if (pthread_create(&device->thread, NULL, device_thread, device))
		die("cannot create a thread for the device");
}

void device_destroy(struct device *device)
{
	uint64_t kick = 1;

	__atomic_store_n(&device->stopping, true, __ATOMIC_SEQ_CST);
	if (write(device->kick_fd, &kick, sizeof(kick)) != sizeof(kick))
		die("cannot stop the device: %m");
	pthread_join(device->thread, NULL);
	close(device->kick_fd);
}

/* SPDX-License-Identifier: GPL-2.0 */
/* The guest's flat image as data of the VMM. */
	.section .rodata
	.globl guest_image, guest_image_end
guest_image:
	.incbin "guest.bin"
guest_image_end:

	.section .note.GNU-stack, "", @progbits

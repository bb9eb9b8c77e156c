# SPDX-License-Identifier: GPL-2.0-only
#
# Each target is a script of scripts/; this file says in what order.  Variables
# on the command line reach the scripts.  Lines with "#:" are the help.

#: In-place conversion for guest_memfd: a patch series for Linux 7.3, and a VM to
#: run and test it in.  All is built below build/; nothing else is changed, but
#: for Debian packages that are installed when they are missing.
#:
#: Main targets; each does first what it needs:
#:   make run        run the example VMM and its guests in the VM, both ways, and
#:                   draw what happened to their memory
#:   make test       run the tests, in each configuration of vm/tests, and those of
#:                   row 1 and the KUnit tests with a kernel that checks itself
#:   make kunit      run the KUnit tests, in a kernel and a VM of their own
#:   make stress     the tests for longer, with kernels that find misuse of locks, of
#:                   memory, leaks and data races; each run is repeated only if
#:                   something changed
#:   make mutants    does "make test" notice if the series is wrong?  One small
#:                   mistake at a time, each of which a test has to catch
#:   make coverage   which lines and branches that the series adds or changes do
#:                   the tests run?  Each that they don't run has to have a reason
#:   make regress    run all selftests of the base on it and in each row, and compare;
#:                   make regress-docs copies the table to docs/selftests.md
#:   make shell      a shell in the VM, with KVM as row ROW=1 of vm/tests
#:   make bench      measure what conversion costs: without the series, per VM, in
#:                   place; make bench-docs copies the results to docs/bench
#:   make vmm        boot Linux with QEMU in the VM, with the series and without
#:
#: To work on the series:
#:   make tree       make build/linux, a git work tree with one commit per patch;
#:                   it never drops commits that patches/ does not have
#:   make export     regenerate patches/ from it; the same commits give the same
#:                   bytes
#:   make deb        build Debian packages of the kernel with the series, install and
#:                   boot them, and run the tests of rows 3 and 4; takes more than
#:                   half an hour the first time
#:   make oldconfig  what the series changes in Debian's amd64 configuration
#:   make matrix     build it with W=1 in each configuration that matters, and for
#:                   other architectures; takes most of an hour the first time
#:   make check      let checkpatch, sparse, coccinelle, compilers and others look
#:                   at the series and at this repository; CHECKS=... does only some
#:   make bisect     build, boot and test it patch by patch; PATCHES=19-24 does some
#:   make bases      see that it applies to, and works on, each 7.3.y of Debian's
#:
#: To hand it on:
#:   make mbox       mails to send, or a mailbox for git am; SIGNOFF='Name <mail>' is
#:                   their author, and signs off
#:   make quilt      a tarball for a queue such as debian/patches
#:
#: The steps they consist of:
#:   make setup      install missing Debian packages
#:   make base       get the kernel source, as a git repository in build/src
#:   make queue      apply patches/ to it
#:   make kernel     build it, with VM_MEMORY_ATTRIBUTES=n and =y
#:   make clean      remove what was built, keep source and compiler cache
#:   make distclean  remove build/, unless build/linux has unsaved commits
#:
#: Variables:
#:   KERNEL_SRC=     source tree or tarball of Linux 7.3.y to use as the base,
#:                   instead of the newest package linux-source-7.3 of Debian
#:   TREE=           git work tree to build and test as it is, such as build/linux
#:   ROWS=13         test only these rows of vm/tests
#:                   (matrix: build only rows that match, such as 'arm64-*')
#:   TESTS='g*'      test only programs that match
#:   DEBUG=          kernel, run, test, shell: use a kernel with these fragments of
#:                   config/, such as debug-fault or kasan-fault
#:   KERNELS='ka*'   stress only kernels that match
#:   MUTANTS='zap-*' only mutants that match
#:   CHECKS='sp*'    check: only those that match
#:   BASES='*orig*'  bases: only those that match; SMOKE=n only applies the series
#:   CONFIG=         deb, oldconfig: start from this configuration, not Debian's
#:   FULL=y          deb: leave out no driver
#:   SLOW=3          let everything in the VM take so many times as long, on a machine
#:                   that is slow or busy
#:   ACCEL=tcg|kvm   how to run the VM; by default KVM if a trial shows that
#:                   guests can have guests here, else emulation

scripts := scripts
steps := setup base queue kernel

.DEFAULT_GOAL := help
.PHONY: help $(steps) run test kunit stress mutants coverage regress regress-docs shell bench bench-docs vmm deb oldconfig matrix tree export \
	check bisect bases mbox quilt clean distclean
.NOTPARALLEL:

help:
	@sed -n 's/^#: \{0,1\}//p' Makefile

setup:
	@$(scripts)/setup.sh

ifdef TREE
base queue:
	@:
else
base: setup
	@$(scripts)/base.sh

queue: base
	@$(scripts)/queue.sh
endif

kernel: setup queue
	@$(scripts)/kernel.sh n$(DEBUG:%=-%) y$(DEBUG:%=-%)

run: kernel
	@$(scripts)/run.sh

test: kernel
	@$(scripts)/setup.sh kunit
	@$(scripts)/test.sh

kunit: setup queue
	@$(scripts)/setup.sh kunit
	@$(scripts)/kunit.sh

stress: setup queue
	@$(scripts)/stress.sh

mutants: setup queue
	@$(scripts)/mutants.sh

coverage: setup queue
	@$(scripts)/setup.sh coverage
	@$(scripts)/coverage.sh

regress: kernel
	@$(scripts)/regress.sh

regress-docs:
	@$(scripts)/regress.sh -d

shell: kernel
	@$(scripts)/vm.sh -i -r $(or $(ROW),1)

deb: setup queue
	@$(scripts)/setup.sh deb
	@$(scripts)/deb.sh

oldconfig: queue
	@$(scripts)/oldconfig.sh

bench: kernel
	@$(scripts)/setup.sh bench
	@$(scripts)/bench.sh

bench-docs:
	@$(scripts)/bench.sh -d

vmm: kernel
	@$(scripts)/setup.sh vmm
	@$(scripts)/vmm.sh

matrix: setup queue
	@$(scripts)/setup.sh matrix
	@$(scripts)/matrix.sh

check: setup queue
	@$(scripts)/setup.sh check
	@$(scripts)/check.sh

bisect: setup queue
	@$(scripts)/bisect.sh

bases: setup queue
	@$(scripts)/bases.sh

mbox: queue
	@$(scripts)/setup.sh mbox
	@$(scripts)/mbox.sh

quilt: queue
	@$(scripts)/setup.sh quilt
	@$(scripts)/quilt.sh

tree: queue
	@$(scripts)/tree.sh

export:
	@$(scripts)/export.sh

clean:
	@$(scripts)/clean.sh

distclean:
	@$(scripts)/clean.sh all

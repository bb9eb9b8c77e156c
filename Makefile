# SPDX-License-Identifier: GPL-2.0-only
#
# Every target is one script of scripts/; this file only says which, and in
# what order.  Variables on the command line reach the scripts.

S := scripts
.DEFAULT_GOAL := help
.PHONY: help test
.NOTPARALLEL:

help:
	@cat $S/help.txt

test:
	@$S/test.sh

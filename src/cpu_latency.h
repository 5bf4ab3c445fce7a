/* SPDX-License-Identifier: MIT */
/*
 * Asking the kernel to keep processors that have nothing to do from sleeping, by /dev/cpu_dma_latency (kernel
 * documentation, "PM Quality Of Service Interface"). The request belongs to the fd and ends with it, however
 * the process ends. A processor that sleeps takes 20 microseconds and more to wake in a virtual machine, and
 * every request of a client that asks one thing after the other waits for that.
 */
#ifndef CKRFS_CPU_LATENCY_H
#define CKRFS_CPU_LATENCY_H

/* A fd that asks for nothing yet. -errno: not root, or no such device. */
int cpu_latency_open(void);

/* Any thread; failure changes nothing but speed. */
void cpu_latency_hold(int fd);
void cpu_latency_release(int fd);

#endif

/* SPDX-License-Identifier: MIT */
/*
 * What container runtimes tell a hook (OCI runtime specification: "State", "Annotations", config.json) and
 * the annotations that name volumes: io.ckrfs.volume.NAME = PATH[:OPTION]... Buffers in, structs out; no file
 * here. Any bytes may come: whoever may create containers chooses the annotations. Sizes include the NUL.
 */
#ifndef CKRFS_OCI_MESSAGE_H
#define CKRFS_OCI_MESSAGE_H

#include "error.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define OCI_ANNOTATION "io.ckrfs.volume."

enum {
	OCI_STATE_MAX = 1 << 20, /* bytes of a state; annotations of pods may be long */
	OCI_CONFIG_MAX = 4 << 20,
	OCI_ID_SIZE = 129,
	OCI_NAME_SIZE = 65,
	OCI_PATH_SIZE = 4096,
	OCI_VOLUMES_MAX = 16,
};

/* One annotation. */
struct oci_volume {
	char name[OCI_NAME_SIZE]; /* config_name_valid() */
	char path[OCI_PATH_SIZE]; /* in the container: absolute, without "." and "..", not "/" */
	bool read_only, no_exec;
};

struct oci_volumes {
	uint32_t n;
	struct oci_volume list[OCI_VOLUMES_MAX]; /* names and paths: each once */
};

struct oci_state {
	char id[OCI_ID_SIZE];       /* letters, digits and ".", "_", "+", "-", ":"; not starting with "." */
	pid_t pid;                  /* of the container's first process, as its runtime sees it; 0: none */
	char bundle[OCI_PATH_SIZE]; /* absolute */
	bool has_annotations;
	struct oci_volumes volumes;
};

struct oci_config {
	char root[OCI_PATH_SIZE]; /* of the container, may be relative to the bundle */
	struct oci_volumes volumes;
};

/* A state, as it comes on a hook's standard input. On failure -EBADMSG and the like with words, ret
 * untouched. buf needs no NUL. */
int oci_state_parse(const char *buf, size_t size, struct oci_state *ret, struct error *err);

/* A bundle's config.json: only what is in struct oci_config is looked at. */
int oci_config_parse(const char *buf, size_t size, struct oci_config *ret, struct error *err);

/* PATH[:OPTION]... (a comma does, too) for the volume of that name; -EINVAL with words. */
int oci_volume_parse(const char *name, const char *value, struct oci_volume *ret, struct error *err);

/* The name of the mount that a container has for itself, NAME@ID: an ID of 64 hexadecimal digits is cut to
 * 12, as engines show it. -EINVAL with words: not a name that a mount can have. */
int oci_mount_name(const char *volume, const char *id, char ret[OCI_NAME_SIZE], struct error *err);

#endif

/* SPDX-License-Identifier: MIT */
/* What plugin_message.c (JSON), plugin_record.c (files, forms of names and values) and oci_message.c share.
 */
#ifndef CKRFS_PLUGIN_MESSAGE_IMPL_H
#define CKRFS_PLUGIN_MESSAGE_IMPL_H

#include "plugin_message.h"

/* No control characters, valid UTF-8? */
bool plugin_text_fine(const char *text);
/* Printable ASCII without blanks; may be empty. */
bool plugin_id_valid(const char *id);
/* "volume" or an option of ckrfs.conf(5) that a container engine may have a say in. */
bool plugin_option_known(const char *name);

#endif

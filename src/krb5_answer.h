/* SPDX-License-Identifier: MIT */
/*
 * What ckrfs-net does for krb5_source_ask(): asks for a ticket and answers. The process ends with it, and
 * libkrb5's copies of keys with the process.
 */
#ifndef CKRFS_KRB5_ANSWER_H
#define CKRFS_KRB5_ANSWER_H

/* argv[0] is KRB5_ANSWER_COMMAND. An exit status; says nothing by itself. */
int krb5_answer(int argc, char **argv);

#endif

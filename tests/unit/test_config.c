/* SPDX-License-Identifier: MIT */
/* Configuration as text: sections, options, words behind -o, and what goes together; test_config_load.c has
 * files. */
#include "cleanup.h"
#include "config_impl.h"
#include "unit.h"
#include "util.h"
#include <errno.h>
#include <json-c/json.h>
#include <string.h>

static struct config_set *parse(const char *text, struct error *err)
{
	struct config_set *set = NULL;

	assert_int_equal(config_set_new(0, &set, err), 0);
	if (config_parse(set, "f", text, strlen(text), err) < 0) {
		config_set_free(set);
		return NULL;
	}
	return set;
}

static struct config *volume(const struct config_set *set, const char *name)
{
	struct config *cfg = NULL;

	assert_int_equal(config_volume(set, name, &cfg, NULL), 0);
	return cfg;
}

static int index_of(const char *name)
{
	int i = config_option_index(name);

	assert_true(i >= 0);
	return i;
}

static const char *origin_of(const struct config *cfg, const char *name)
{
	return cfg->origins[index_of(name)].text;
}

static void assert_text(const struct config *cfg, const char *name, const char *want)
{
	autofree char *text = NULL;

	assert_int_equal(config_value_text(cfg, index_of(name), &text), 0);
	if (want)
		assert_string_equal(text, want);
	else
		assert_null(text);
}

/* Every member has the default that the table promises, and that text gives the same value again. */
static void test_defaults(void **state)
{
	autoconfig struct config *cfg = NULL;
	autoconfig struct config *user = NULL;

	assert_int_equal(config_new("v", 0, &cfg, NULL), 0);
	assert_int_equal(config_new("v", 1000, &user, NULL), 0);
	for (int i = 0; config_options[i].name; i++) {
		const struct config_option *o = &config_options[i];

		assert_null(cfg->origins[i].text);
		assert_non_null(o->help);
		assert_non_null(o->argument);
		if (o->type != CONFIG_KEY && strcmp(o->name, "allow-other"))
			assert_text(cfg, o->name, o->fallback);
	}
	assert_true(cfg->allow_other);
	assert_false(user->allow_other);
	assert_int_equal(cfg->format, CONFIG_FORMAT_GOCRYPTFS);
	assert_int_equal(cfg->keyring_search, CONFIG_SEARCH_LAST);
	assert_int_equal(cfg->key_timeout_ms, 30000);
	assert_int_equal(cfg->scrypt_memory, 1 << 30);
	assert_true(cfg->key_file_check && cfg->exec && cfg->writeback);
	assert_false(cfg->shared || cfg->read_only || cfg->suid || cfg->dev);
	assert_int_equal(cfg->attr_timeout_ms, 1000);
	assert_int_equal(cfg->negative_timeout_ms, 0);
	assert_int_equal(cfg->stop_timeout_ms, 10000);
	assert_int_equal(cfg->n_keys, 0);
	assert_null(cfg->keys[0]);
}

static void test_sections(void **state)
{
	static const char text[] = "\xEF\xBB\xBF# comment\r\n"
				   "[defaults]\r\n"
				   "threads = 4 ; inline\n"
				   "shared=on\n"
				   "\n"
				   "  [ volume  photos ]  # the pictures\n"
				   "\tsource = /srv/p h,#;x\n"
				   "key = file:/k1\n"
				   "  key = fd:3?fmt=raw\n"
				   "threads: 8\n"
				   "[volume a]\n"
				   "source=/a";
	struct error err = ERROR_NONE;
	autoconfig_set struct config_set *set = parse(text, &err);
	autoconfig struct config *p = NULL, *a = NULL, *none = NULL;
	const char *const *names;

	assert_non_null(set);
	names = config_volumes(set);
	assert_string_equal(names[0], "a");
	assert_string_equal(names[1], "photos");
	assert_null(names[2]);
	p = volume(set, "photos");
	assert_string_equal(p->name, "photos");
	assert_string_equal(p->source, "/srv/p h,#;x");
	assert_string_equal(origin_of(p, "source"), "f:7");
	assert_int_equal(p->n_keys, 2);
	assert_string_equal(p->keys[0], "file:/k1");
	assert_string_equal(p->keys[1], "fd:3?fmt=raw");
	assert_null(p->keys[2]);
	assert_int_equal(p->threads, 8);
	assert_string_equal(origin_of(p, "threads"), "f:10");
	assert_true(p->shared);
	assert_string_equal(origin_of(p, "shared"), "f:4");
	a = volume(set, "a");
	assert_int_equal(a->threads, 4);
	assert_int_equal(a->n_keys, 0);
	assert_int_equal(config_anonymous(set, "/x", &none, &err), 0);
	assert_int_equal(none->threads, 4);
	assert_null(none->source);
}

static void test_file_errors(void **state)
{
	static const struct {
		const char *text, *want;
	} cases[] = {
		{"[volume x]\nsourc = /a\n", "f:2: unknown option \"sourc\" (did you mean \"source\"?)"},
		{"[volume x]\nzzzzzzzz = /a\n", "f:2: unknown option \"zzzzzzzz\""},
		{"\n\nsource = /a\n", "f:3: an option before the first section"},
		{"[defaults]\nsource = /a\n",
		 "f:2: source belongs to one volume and cannot stand in [defaults]"},
		{"[defaults]\ntarget = /a\n",
		 "f:2: target belongs to one volume and cannot stand in [defaults]"},
		{"[defaults]\nkey = fd:3\n", "f:2: key belongs to one volume and cannot stand in [defaults]"},
		{"[volume x]\n#\nshared = yes\nshared = yes\n", "f:4: shared is already set in line 3"},
		{"[volume x]\n[volume x]\n", "f:2: volume \"x\" is already in f:1"},
		{"[defaults]\n[defaults]\n", "f:2: [defaults] is already in line 1"},
		{"[default]\n", "f:1: unknown section [default]: there are [defaults] and [volume NAME]"},
		{"[volumes x]\n", "f:1: unknown section [volumes x]: there are [defaults] and [volume NAME]"},
		{"[defaults x]\n",
		 "f:1: unknown section [defaults x]: there are [defaults] and [volume NAME]"},
		{"[volume]\n",
		 "f:1: bad volume name \"\": 1 to 64 letters, digits, \".\", \"_\" and \"-\", the "
		 "first not \".\" or \"-\""},
		{"[volume .x]\n",
		 "f:1: bad volume name \".x\": 1 to 64 letters, digits, \".\", \"_\" and \"-\", "
		 "the first not \".\" or \"-\""},
		{"[volume x\n", "f:1: a section is written [defaults] or [volume NAME], alone in its line"},
		{"[volume x] shared = yes\n",
		 "f:1: a section is written [defaults] or [volume NAME], alone in its line"},
		{"[volume x]\nsource\n[volume y]\n", "f:2: expected NAME = VALUE, a section or a comment"},
		{"[volume x]\nsource", "f:2: expected NAME = VALUE, a section or a comment"},
		{"[volume x]\nkey = exec:/bin/a\n   --continued\n",
		 "f:3: expected NAME = VALUE, a section or a comment"},
		{"[volume x]\nsource =\n", "f:2: source needs a value (PATH)"},
		{"[volume x]\nsource = a/b\n", "f:2: source = \"a/b\": must be an absolute path"},
		{"[volume x]\nshared = maybe\n", "f:2: shared = \"maybe\": must be yes or no"},
		{"[volume x]\nformat = plan\n",
		 "f:2: format = \"plan\": must be gocryptfs or plain (did you mean \"plain\"?)"},
		{"[volume x]\nlog-level = 3\n",
		 "f:2: log-level = \"3\": must be error, warning, info or debug"},
		{"[volume x]\nthreads = 65\n", "f:2: threads = \"65\": must be a whole number, from 0 to 64"},
		{"[volume x]\nthreads = -1\n", "f:2: threads = \"-1\": must be a whole number, from 0 to 64"},
		{"[volume x]\nkey-timeout = 0\n",
		 "f:2: key-timeout = \"0\": must be a time like 30s, 5m or 250ms, from 1ms to 1h"},
		{"[volume x]\nscrypt-memory = 1\n",
		 "f:2: scrypt-memory = \"1\": must be a size like 4096, 64K, 512M or 1G, from 1M to 1024G"},
		{"[volume x]\nkeyring = 0\n",
		 "f:2: keyring = \"0\": must be none, inherit or the serial number "
		 "of a keyring"},
		{"[volume x]\nkeyring = 0x10\n",
		 "f:2: keyring = \"0x10\": must be none, inherit or the serial number of a keyring"},
		{"[volume x]\nkeyring = 2147483648\n",
		 "f:2: keyring = \"2147483648\": must be none, inherit or the serial number of a keyring"},
		{"[volume x]\nlog = journal\n",
		 "f:2: log = \"journal\": must be syslog, stderr or the absolute path of a file"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct error err = ERROR_NONE;

		assert_null(parse(cases[i].text, &err));
		assert_string_equal(err.text, cases[i].want);
		assert_int_equal(err.code, -EINVAL);
		assert_int_equal(err.status, EXIT_STATUS_CONFIG);
	}
}

static void test_good_words(void **state)
{
	static const char *const names[] = {
		"a", "A.b_c-9", "0", "0123456789012345678901234567890123456789012345678901234567890123"};
	static const char *const bad[] = {
		"",
		"-a",
		".",
		"a/b",
		"a b",
		"\xC3\xA4",
		"01234567890123456789012345678901234567890123456789012345678901234"};
	autoconfig struct config *cfg = NULL;

	for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
		autofree char *text = NULL;
		autoconfig_set struct config_set *set = NULL;

		assert_true(config_name_valid(names[i]));
		assert_true(asprintf(&text, "[volume %s]\n", names[i]) > 0);
		set = parse(text, NULL);
		assert_non_null(set);
		assert_string_equal(config_volumes(set)[0], names[i]);
	}
	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		assert_false(config_name_valid(bad[i]));
	assert_int_equal(config_new("v", 0, &cfg, NULL), 0);
	assert_int_equal(config_set_option(cfg, "keyring", "2147483647", "x", NULL), 0);
	assert_int_equal(config_set_option(cfg, "log", "/var/log/x", "x", NULL), 0);
	assert_int_equal(config_set_option(cfg, "attr-timeout", "90s", "x", NULL), 0);
	assert_text(cfg, "attr-timeout", "90s");
	assert_int_equal(config_set_option(cfg, "attr-timeout", "1500ms", "x", NULL), 0);
	assert_text(cfg, "attr-timeout", "1500ms");
	assert_int_equal(config_set_option(cfg, "attr-timeout", "120", "x", NULL), 0);
	assert_text(cfg, "attr-timeout", "2m");
	assert_int_equal(config_set_option(cfg, "scrypt-memory", "1536M", "x", NULL), 0);
	assert_text(cfg, "scrypt-memory", "1536M");
}

/* A line as long as allowed comes through whole, a longer one is an error with its number. */
static void test_long_lines(void **state)
{
	enum { LONGEST = 4096 };
	static const char head[] = "[volume x]\nsource = /";
	size_t at = strlen("[volume x]\n");

	for (int extra = 0; extra < 2; extra++) {
		autofree char *text = malloc(at + LONGEST + 3);
		struct error err = ERROR_NONE;
		autoconfig_set struct config_set *set = NULL;

		assert_non_null(text);
		strcpy(text, head);
		memset(text + strlen(head), 'p', at + LONGEST + extra - strlen(head));
		strcpy(text + at + LONGEST + extra, "\n");
		set = parse(text, &err);
		if (extra) {
			assert_null(set);
			assert_string_equal(err.text, "f:2: the line is longer than 4096 bytes");
		} else {
			autoconfig struct config *cfg = NULL;

			assert_non_null(set);
			cfg = volume(set, "x");
			assert_int_equal(strlen(cfg->source), LONGEST - strlen("source = "));
		}
	}
}

static void test_nul(void **state)
{
	static const char text[] = "[volume x]\nsource = /a\0b\n";
	struct error err = ERROR_NONE;
	autoconfig_set struct config_set *set = NULL;

	assert_int_equal(config_set_new(0, &set, NULL), 0);
	assert_int_equal(config_parse(set, "f", text, sizeof(text) - 1, &err), -EINVAL);
	assert_string_equal(err.text, "f:2: the line holds a NUL byte");
}

static void test_missing_volume(void **state)
{
	autoconfig_set struct config_set *set = parse("[volume photos]\n[volume mail]\n", NULL);
	struct error err = ERROR_NONE;
	struct config *cfg = NULL;

	assert_int_equal(config_volume(set, "phots", &cfg, &err), -ENOENT);
	assert_string_equal(err.text,
			    "no volume \"phots\" in /etc/ckrfs/ckrfs.conf (did you mean \"photos\"?)");
	assert_int_equal(err.status, EXIT_STATUS_NO_VOLUME);
	assert_int_equal(config_volume(set, "qqqqqq", &cfg, &err), -ENOENT);
	assert_string_equal(err.text, "no volume \"qqqqqq\" in /etc/ckrfs/ckrfs.conf");
	assert_null(cfg);
}

static void test_options(void **state)
{
	autoconfig struct config *cfg = NULL;
	struct error err = ERROR_NONE;

	assert_int_equal(config_new("v", 0, &cfg, NULL), 0);
	assert_int_equal(
		config_apply_options(cfg,
				     "rw,,noatime,_netdev,nofail,owner,group,x-systemd.automount,"
				     "X-y=z,comment=a=b,defaults,user=joe,suid,noexec,dev,nowriteback,"
				     "source=/a\\,b\\c,owner=joe,key=file:/1,key=file:/2,shared",
				     "-o", &err),
		0);
	assert_true(cfg->suid && cfg->dev && cfg->shared);
	assert_false(cfg->exec || cfg->writeback || cfg->read_only);
	assert_string_equal(cfg->source, "/a,b\\c");
	assert_string_equal(cfg->owner, "joe");
	assert_int_equal(cfg->n_keys, 2);
	assert_string_equal(cfg->keys[1], "file:/2");
	assert_string_equal(origin_of(cfg, "exec"), "-o");
	assert_null(origin_of(cfg, "read-only"));
	assert_int_equal(config_apply_options(cfg, "nosuid,nodev,exec,noshared", "-o", &err), 0);
	assert_false(cfg->suid || cfg->dev || cfg->shared);
	assert_true(cfg->exec);
	assert_int_equal(config_apply_options(cfg, "", "-o", &err), 0);
}

/* -o replaces the keys of the section; rw, which mount(8) always gives, does not override read-only. */
static void test_options_over_section(void **state)
{
	autoconfig_set struct config_set *set =
		parse("[volume v]\nread-only = yes\nkey = fd:1\nkey = fd:2\nsource = /s\n", NULL);
	autoconfig struct config *cfg = volume(set, "v");

	assert_int_equal(cfg->n_keys, 2);
	assert_int_equal(config_apply_options(cfg, "rw,key=fd:7", "-o", NULL), 0);
	assert_true(cfg->read_only);
	assert_int_equal(cfg->n_keys, 1);
	assert_string_equal(cfg->keys[0], "fd:7");
	assert_int_equal(config_set_option(cfg, "key", "fd:8", "--key", NULL), 0);
	assert_int_equal(config_set_option(cfg, "key", "fd:9", "--key", NULL), 0);
	assert_int_equal(cfg->n_keys, 2);
	assert_string_equal(cfg->keys[0], "fd:8");
	assert_int_equal(config_apply_options(cfg, "read-only=no", "-o", NULL), 0);
	assert_false(cfg->read_only);
	assert_int_equal(config_apply_options(cfg, "ro", "-o", NULL), 0);
	assert_true(cfg->read_only);
	assert_int_equal(config_apply_options(cfg, "ro,rw", "-o", NULL), 0);
	assert_false(cfg->read_only);
}

static void test_option_errors(void **state)
{
	static const struct {
		const char *options, *want;
		int code;
		enum exit_status status;
	} cases[] = {
		{"sync", "-o: \"sync\" is not supported", -EINVAL, EXIT_STATUS_CONFIG},
		{"ro,dirsync", "-o: \"dirsync\" is not supported", -EINVAL, EXIT_STATUS_CONFIG},
		{"nosymfollow", "-o: \"nosymfollow\" is not supported", -EINVAL, EXIT_STATUS_CONFIG},
		{"remount,ro", "-o: \"remount\" is not supported", -EOPNOTSUPP, EXIT_STATUS_UNSUPPORTED},
		{"allow_other", "-o: unknown option \"allow_other\" (did you mean \"allow-other\"?)", -EINVAL,
		 EXIT_STATUS_CONFIG},
		{"noatme", "-o: unknown option \"noatme\" (did you mean \"noatime\"?)", -EINVAL,
		 EXIT_STATUS_CONFIG},
		{"nosource", "-o: unknown option \"nosource\" (did you mean \"source\"?)", -EINVAL,
		 EXIT_STATUS_CONFIG},
		{"rw=1", "-o: rw takes no value", -EINVAL, EXIT_STATUS_CONFIG},
		{"source", "-o: source needs a value: source=PATH", -EINVAL, EXIT_STATUS_CONFIG},
		{"source=", "-o: source needs a value (PATH)", -EINVAL, EXIT_STATUS_CONFIG},
		{"comment", "-o: unknown option \"comment\"", -EINVAL, EXIT_STATUS_CONFIG},
		{"=x", "-o: unknown option \"\"", -EINVAL, EXIT_STATUS_CONFIG},
		{"name=x", NULL, -EINVAL, EXIT_STATUS_CONFIG},
		{"threads=x", "-o: threads = \"x\": must be a whole number, from 0 to 64", -EINVAL,
		 EXIT_STATUS_CONFIG},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		autoconfig struct config *cfg = NULL;
		struct error err = ERROR_NONE;

		assert_int_equal(config_new("v", 0, &cfg, NULL), 0);
		assert_int_equal(config_apply_options(cfg, cases[i].options, "-o", &err), cases[i].code);
		if (cases[i].want)
			assert_string_equal(err.text, cases[i].want);
		assert_int_equal(err.status, cases[i].status);
	}
}

static void test_finish(void **state)
{
	autoconfig struct config *cfg = NULL;
	autofree char *cwd = getcwd(NULL, 0);
	autofree char *want = NULL;
	struct error err = ERROR_NONE;

	assert_int_equal(config_new("v", 0, &cfg, NULL), 0);
	assert_int_equal(config_volume_finish(cfg, &err), -EINVAL);
	assert_string_equal(err.text, "volume \"v\" has no source");
	assert_int_equal(err.status, EXIT_STATUS_CONFIG);
	assert_int_equal(config_set_option(cfg, "source", "./a/b", "-", NULL), 0);
	assert_int_equal(config_set_option(cfg, "target", ".", "-", NULL), 0);
	assert_int_equal(config_volume_finish(cfg, &err), 0);
	assert_true(asprintf(&want, "%s/a/b", cwd) > 0);
	assert_string_equal(cfg->source, want);
	assert_string_equal(cfg->target, cwd);
	assert_int_equal(config_set_option(cfg, "key", "fd:3", "-", NULL), 0);
	assert_int_equal(config_volume_finish(cfg, &err), 0);
	assert_int_equal(config_set_option(cfg, "format", "plain", "-", NULL), 0);
	assert_int_equal(config_volume_finish(cfg, &err), -EINVAL);
	assert_string_equal(err.text,
			    "key sources are given but format \"plain\" on lower \"directory\" uses no key");
	assert_int_equal(err.status, EXIT_STATUS_CONFIG);
}

/* What an ephemeral volume cannot have, by -o and the words that say so. */
static void test_finish_ephemeral(void **state)
{
	static const struct {
		const char *options, *says;
	} cases[] = {
		{"ephemeral", NULL},
		{"ephemeral,keyring=inherit,on-expire=keep,key-lifetime=1h", NULL},
		{"noephemeral,key=fd:3,ro,shared", NULL},
		{"ephemeral,key=fd:3", "its key is made"},
		{"ephemeral,lower-key=fd:3", "its key is made"},
		{"ephemeral,format=plain", "the format \"plain\""},
		{"ephemeral,lower=fscrypt", "lower = fscrypt"},
		{"ephemeral,lower=fscrypt,format=gocryptfs,lower-key=fd:3", "lower = fscrypt"},
		{"ephemeral,shared", "no other mount"},
		{"ephemeral,ro", "read-only"},
		{"ephemeral,hide-lower", "it takes a directory"},
		{"ephemeral,subtree=/x", "it takes a directory"},
	};

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		autoconfig struct config *cfg = NULL;
		struct error err = ERROR_NONE;

		assert_int_equal(config_new("v", 0, &cfg, NULL), 0);
		assert_int_equal(config_set_option(cfg, "source", "/s", "-", NULL), 0);
		assert_int_equal(config_apply_options(cfg, cases[i].options, "-o", &err), 0);
		assert_int_equal(config_volume_finish(cfg, &err), cases[i].says ? -EINVAL : 0);
		if (!cases[i].says)
			continue;
		assert_int_equal(err.status, EXIT_STATUS_CONFIG);
		assert_non_null(strstr(err.text, "ephemeral = yes cannot be done: "));
		assert_non_null(strstr(err.text, cases[i].says));
	}
}

static char *show(const struct config *cfg, bool json)
{
	char *text = NULL;
	size_t size;
	FILE *f = open_memstream(&text, &size);

	assert_non_null(f);
	assert_int_equal(config_show(cfg, f, json), 0);
	assert_int_equal(fclose(f), 0);
	return text;
}

static void test_show(void **state)
{
	autoconfig_set struct config_set *set =
		parse("[volume v]\nsource = /s\xC3\xA4\x1B[1m\xFF\nkey = fd:1\nkey = fd:2\n", NULL);
	autoconfig struct config *cfg = volume(set, "v");
	autofree char *text = show(cfg, false);

	assert_non_null(strstr(text, "source           = /s\xC3\xA4\\x1B[1m\\xFF            # f:2\n"));
	assert_non_null(strstr(text, "\ntarget           = -                         # default\n"));
	assert_non_null(strstr(text,
			       "\nkey              = fd:1                      # f:4\nkey              = "
			       "fd:2                      # f:4\n"));
	assert_non_null(strstr(text, "\nstop-timeout     = 10s                       # default\n"));
}

static json_object *json_option(json_object *root, const char *name, const char *member)
{
	json_object *options, *option, *value;

	assert_true(json_object_object_get_ex(root, "options", &options));
	assert_true(json_object_object_get_ex(options, name, &option));
	assert_true(json_object_object_get_ex(option, member, &value));
	return value;
}

static void test_show_json(void **state)
{
	autoconfig_set struct config_set *set =
		parse("[volume v]\nsource = /q\"b\\t\tu\xC3\xA4\xF0\x9F\x90\xA7\x7F\xFF\xED\xA0\x80\nkey = "
		      "fd:1\nkey = fd:2\n",
		      NULL);
	autoconfig struct config *cfg = volume(set, "v");
	autofree char *text = show(cfg, true);
	struct json_tokener *tok = json_tokener_new();
	json_object *root, *options;
	int n = 0;

	json_tokener_set_flags(tok, JSON_TOKENER_STRICT | JSON_TOKENER_VALIDATE_UTF8);
	root = json_tokener_parse_ex(tok, text, (int)strlen(text) + 1);
	assert_non_null(root);
	assert_string_equal(
		json_object_get_string(json_option(root, "source", "value")),
		"/q\"b\\t\tu\xC3\xA4\xF0\x9F\x90\xA7\x7F\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");
	assert_string_equal(json_object_get_string(json_option(root, "source", "origin")), "f:2");
	assert_string_equal(json_object_get_string(json_option(root, "exec", "value")), "yes");
	assert_string_equal(json_object_get_string(json_option(root, "exec", "origin")), "default");
	assert_null(json_option(root, "target", "value"));
	assert_int_equal(json_object_array_length(json_option(root, "key", "value")), 2);
	assert_true(json_object_object_get_ex(root, "options", &options));
	while (config_options[n].name)
		n++;
	assert_int_equal(json_object_object_length(options), n);
	json_object_put(root);
	json_tokener_free(tok);
}

/* What users cannot change comes from the default files, and stands nowhere else. */
static void test_limits(void **state)
{
	static const char *const lines[] = {"max-mounts = 5", "max-keys = 5"};
	static const char text[] = "[defaults]\nmax-mounts = 3\nmax-keys = 2\nthreads = 7\n";
	struct config_set *set = NULL, *system = NULL;
	struct config *cfg = NULL;
	struct error err = ERROR_NONE;

	for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
		autofree char *file = NULL, *want = NULL;

		assert_true(asprintf(&file, "[defaults]\n%s\n", lines[i]) > 0);
		assert_null(parse(file, &err));
		assert_true(asprintf(&want, "f:2: %.*s can stand only in [defaults] of /etc/ckrfs/ckrfs.conf",
				     (int)strcspn(lines[i], " "), lines[i]) > 0);
		assert_string_equal(err.text, want);
		assert_int_equal(err.status, EXIT_STATUS_CONFIG);
	}
	assert_int_equal(config_set_new(1000, &system, &err), 0);
	system->system = true;
	assert_int_equal(config_parse(system, "s", text, strlen(text), &err), 0);
	assert_true(config_parse(system, "t", "[volume x]\nmax-keys = 1\n", 24, &err) < 0);
	set = parse("[volume web]\nsource = /x\n", &err);
	assert_non_null(set);
	set->limits = system;
	assert_int_equal(config_volume(set, "web", &cfg, &err), 0);
	assert_int_equal(cfg->max_mounts, 3);
	assert_int_equal(cfg->max_keys, 2);
	assert_int_equal(cfg->threads, 0); /* the rest of those files does not count */
	assert_int_equal(config_apply_options(cfg, "max-mounts=9", "-o", &err), -EPERM);
	assert_int_equal(config_set_option(cfg, "max-keys", "9", "--x", &err), -EPERM);
	assert_int_equal(cfg->max_mounts, 3);
	config_free(cfg);
	config_set_free(set);
}

/* plugin-allow is about no single volume. */
static void test_plugin_allow(void **state)
{
	static const struct {
		const char *value;
		bool fine;
	} cases[] = {
		{"volume", true},
		{"volume=web volume=mail", true},
		{"source=/srv key=file:/etc/keys  key=cred read-only format=plain", true},
		{"source", false},
		{"source=srv", false},
		{"key", false},
		{"lower-key=", false},
		{"volume=", false},
		{"sauce=/srv", false},
		{"=", false},
	};
	struct config_set *set;
	struct config *cfg = NULL;
	struct error err = ERROR_NONE;

	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		autofree char *file = NULL;

		assert_true(asprintf(&file, "[defaults]\nplugin-allow = %s\n", cases[i].value) > 0);
		set = parse(file, &err);
		assert_int_equal(set != NULL, cases[i].fine);
		config_set_free(set);
	}
	assert_null(parse("[volume web]\nplugin-allow = volume\n", &err));
	assert_string_equal(err.text, "f:2: plugin-allow can stand only in [defaults]");
	set = parse("[volume web]\nsource = /x\n", &err);
	assert_non_null(set);
	assert_int_equal(config_volume(set, "web", &cfg, &err), 0);
	assert_string_equal(cfg->plugin_allow, "volume");
	assert_int_equal(config_apply_options(cfg, "plugin-allow=volume", "-o", &err), -EPERM);
	config_free(cfg);
	config_set_free(set);
}

static void test_refresh(void **state)
{
	struct error err = ERROR_NONE;
	struct config_set *set =
		parse("[volume a]\nrefresh = 90\non-expire = eio\nkey-lifetime = 2h\n", &err);
	struct config *cfg = NULL;

	assert_non_null(set);
	assert_int_equal(config_volume(set, "a", &cfg, &err), 0);
	assert_string_equal(cfg->refresh, "90");
	assert_int_equal(cfg->on_expire, CONFIG_EXPIRE_EIO);
	assert_int_equal(cfg->key_lifetime_ms, 7200000);
	config_free(cfg);
	config_set_free(set);
	assert_null(parse("[volume a]\nrefresh = 0\n", &err));
	assert_string_equal(err.text, "f:2: refresh = \"0\": must be auto, no or a time of at least 1s");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_limits),
		cmocka_unit_test(test_plugin_allow),
		cmocka_unit_test(test_refresh),
		cmocka_unit_test(test_defaults),
		cmocka_unit_test(test_sections),
		cmocka_unit_test(test_file_errors),
		cmocka_unit_test(test_good_words),
		cmocka_unit_test(test_long_lines),
		cmocka_unit_test(test_nul),
		cmocka_unit_test(test_missing_volume),
		cmocka_unit_test(test_options),
		cmocka_unit_test(test_options_over_section),
		cmocka_unit_test(test_option_errors),
		cmocka_unit_test(test_finish),
		cmocka_unit_test(test_finish_ephemeral),
		cmocka_unit_test(test_show),
		cmocka_unit_test(test_show_json),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}

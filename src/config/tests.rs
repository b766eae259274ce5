//! Faults by their text, and the example configurations.

use super::*;

const EXAMPLES: [&str; 6] = ["minimal", "ab-split", "sidecar", "edge", "standard-release", "full"];

#[test]
fn every_example_configuration_is_good() {
    for name in EXAMPLES {
        let path = format!("{}/config/{name}.toml", env!("CARGO_MANIFEST_DIR"));
        let config = load(path.as_ref()).unwrap_or_else(|faults| panic!("{faults}"));
        let warnings: Vec<_> = config.warnings.iter().map(|warning| warning.path.as_str()).collect();
        let expect: &[&str] = match name {
            "minimal" => &["store"],
            "full" => &["rollouts.chat.jwt.unverified"],
            _ => &[],
        };
        assert_eq!(warnings, expect, "{name}");
    }
}

/// A good file; each case below replaces one piece of it.
const GOOD: &str = r#"
[admin]
listen = "127.0.0.1:8081"
[[admin.tokens]]
name = "alice"
roles = ["owner"]
secret = "0123456789abcdef-alice"
[listeners.edge]
listen = "0.0.0.0:8080"
[limits]
connections = 10
[store]
path = "state"
[rollouts.chat]
match = { host = "*", path_prefix = "/" }
unit = ["header:x-user-id"]
[rollouts.chat.stable]
version = "a"
endpoints = ["http://127.0.0.1:9001"]
[rollouts.chat.canary]
version = "b"
endpoints = ["http://127.0.0.1:9002"]
[rollouts.chat.plan]
soak = "72h"
[[rollouts.chat.plan.stages]]
weight = 10.0
residence = "24h"
[[rollouts.chat.plan.stages]]
weight = 100.0
[rollouts.chat.gates.error_rate]
rollback = "+0.5pp"
promote = "+0.1pp"
"#;

fn parse_with(text: &str) -> Result<Config, Faults> {
    let variables = |name: &str| (name == "SET").then(|| "a-value-of-the-environment".to_owned());
    parse(text, "t.toml", &variables)
}

/// What is replaced, by what, and the faults that follow (`@` is `t.toml:`).
#[rustfmt::skip]
const CASES: &[(&str, &str, &str)] = &[
    // Syntax, keys, types.
    ("connections = 10", "connections = = 10", "@11:15\n  is not TOML: extra `=`, expected nothing\n@11:17\n  is not TOML: unexpected key or value, expected newline, `#`"),
    ("[limits]", "[limits]\nconections = 5", "@11:1: limits.conections\n  is an unknown key; did you mean \"connections\"?"),
    ("[limits]", "[limits]\nzebra = 5", "@11:1: limits.zebra\n  is an unknown key; known here: connections, requests_per_connection, header_read, header_bytes, headers, uri_bytes, body_bytes, body_progress, idle, h2_streams, peek_bytes, turns, feedback_ids, feedback_items, feedback_per_user"),
    ("[limits]", "[limts]", "@10:2: limts\n  is an unknown key; did you mean \"limits\"?"),
    ("connections = 10", "connections = \"10\"", "@11:15: limits.connections = \"10\"\n  is a string; write a whole number, 0 or more, without quotes"),
    ("connections = 10", "connections = -1", "@11:15: limits.connections = -1\n  is below zero, or too large; write a whole number, 0 or more"),
    ("connections = 10", "connections = 10\nidle = 75", "@12:8: limits.idle = 75\n  is a whole number; write a string, \"…\""),
    ("connections = 10", "connections = 10\nidle = \"75\"", "@12:8: limits.idle = \"75\"\n  has no unit; write a duration, as \"250ms\", \"24h\" or \"1h30m\""),
    ("connections = 10", "connections = 10\nidle = \"0s\"", "@12:8: limits.idle = \"0s\"\n  is too short; write at least \"1ms\""),
    ("connections = 10", "connections = 10\nbody_bytes = \"1MB5\"", "@12:14: limits.body_bytes = \"1MB5\"\n  has an unknown unit; write a size, as \"64KiB\" or \"100MiB\""),
    ("connections = 10", "connections = 0", "@11:15: limits.connections = 0\n  is not between 1 and 10000000"),
    // Variables and secrets.
    ("version = \"a\"", "version = \"${UNSET}\"", "@18:11: rollouts.chat.stable.version = \"${UNSET}\"\n  names the variable UNSET, which is not set; set it, or write ${UNSET:-default}"),
    ("version = \"a\"", "version = \"${SET\"", "@18:11: rollouts.chat.stable.version = \"${SET\"\n  has a \"${\" that is not closed; close it with \"}\", or write \"$${\" for the signs themselves"),
    ("version = \"a\"", "version = \"${not a name}\"", "@18:11: rollouts.chat.stable.version = \"${not a name}\"\n  has a \"${…}\" that names no variable; write ${NAME}, ${NAME:-default} or ${file:PATH}"),
    ("version = \"a\"", "version = \"${file:/nonexistent/a}\"", "@18:11: rollouts.chat.stable.version = \"${file:/nonexistent/a}\"\n  names the file /nonexistent/a, which cannot be opened (No such file or directory); make the file readable for serin"),
    ("secret = \"0123456789abcdef-alice\"", "secret = \"short\"", "@7:10: admin.tokens[0].secret = (hidden)\n  is shorter than 8 characters; make one with \"openssl rand -hex 32\""),
    ("secret = \"0123456789abcdef-alice\"", "secret = 12345678", "@7:10: admin.tokens[0].secret = (hidden)\n  is a whole number; write a string, \"…\""),
    ("secret = \"0123456789abcdef-alice\"", "secret = \"has spaces in it, which is bad\"", "@7:10: admin.tokens[0].secret = (hidden)\n  has spaces, or signs that a header cannot carry; make one with \"openssl rand -hex 32\""),
    // Admin and listeners.
    ("[[admin.tokens]]\nname = \"alice\"\nroles = [\"owner\"]\nsecret = \"0123456789abcdef-alice\"", "probes = \"0.0.0.0:9464\"\ntls = {}", "@5:7: admin.tls.certificate\n  is missing; name a PEM file with the chain, the leaf first\n@5:7: admin.tls.key\n  is missing; name a PEM file with the private key"),
    ("roles = [\"owner\"]", "roles = [\"aprover\"]", "@6:10: admin.tokens[0].roles[0] = \"aprover\"\n  is none of \"viewer\", \"reporter\", \"operator\", \"approver\", \"owner\"; did you mean \"approver\"?"),
    ("roles = [\"owner\"]", "roles = []", "@4:1: admin.tokens[0].roles\n  is missing; write what it may do, as [\"viewer\"]"),
    ("listen = \"0.0.0.0:8080\"", "listen = \"8080\"", "@9:10: listeners.edge.listen = \"8080\"\n  is no address with a port; write \"127.0.0.1:8080\", \"0.0.0.0:8080\" or \"[::]:8080\""),
    ("listen = \"0.0.0.0:8080\"", "listen = \"0.0.0.0:8081\"", "@9:10: listeners.edge.listen = \"0.0.0.0:8081\"\n  collides with admin.listen; give each an address of its own"),
    ("listen = \"0.0.0.0:8080\"", "listen = \"0.0.0.0:8080\"\ntls = { certificate = \"/nonexistent/c.pem\", key = \"/nonexistent/k.pem\" }", "@10:23: listeners.edge.tls.certificate = \"/nonexistent/c.pem\"\n  cannot be opened (No such file or directory); name a file that serin can read; relative paths start at the configuration's folder\n@10:51: listeners.edge.tls.key = \"/nonexistent/k.pem\"\n  cannot be opened (No such file or directory); name a file that serin can read; relative paths start at the configuration's folder"),
    ("listen = \"0.0.0.0:8080\"", "listen = \"0.0.0.0:8080\"\nproxy_protocol = true", "@10:18: listeners.edge.proxy_protocol = true\n  believes anybody: there are no trusted_proxies; write trusted_proxies with the addresses of the balancer"),
    ("listen = \"0.0.0.0:8080\"", "listen = \"0.0.0.0:8080\"\ntrusted_proxies = [\"10.0.0.0/33\"]", "@10:20: listeners.edge.trusted_proxies[0] = \"10.0.0.0/33\"\n  is no network; write \"10.0.0.0/8\" or \"2001:db8::/32\""),
    ("listen = \"0.0.0.0:8080\"", "listen = \"0.0.0.0:8080\"\nhealth = \"healthz\"", "@10:10: listeners.edge.health = \"healthz\"\n  is no path; begin with \"/\"; no query, no spaces"),
    ("[listeners.edge]\nlisten = \"0.0.0.0:8080\"", "", "@1:1: listeners\n  is missing; write [listeners.edge] with listen = \"0.0.0.0:8080\""),
    // Store, log, notify, what comes later.
    ("path = \"state\"", "retention = \"90d\"", "@12:1: store.path\n  is missing; name the folder of journal and evidence"),
    ("[store]", "[log]\nlevel = \"inof\"\n[store]", "@13:9: log.level = \"inof\"\n  is none of \"off\", \"error\", \"warn\", \"info\", \"debug\", \"trace\"; did you mean \"info\"?"),
    ("[store]", "[server]\nworkers = \"many\"\n[store]", "@13:11: server.workers = \"many\"\n  is no number of threads; write \"auto\" or a number from 1 to 1024"),
    ("[store]", "[notify.ops]\nkind = \"slak\"\nurl = \"https://a\"\n[store]", "@13:8: notify.ops.kind = \"slak\"\n  is none of \"webhook\", \"slack\", \"pagerduty\", \"alertmanager\", \"email\", \"deadman\"; did you mean \"slack\"?"),
    ("[store]", "[notify.ops]\nkind = \"slack\"\nurl = \"hooks.example.com/T/secret\"\n[store]", "@14:7: notify.ops.url = (hidden)\n  is no address of this kind; begin with http:// or https:// and write a host"),
    ("[store]", "[notify.ops]\nkind = \"email\"\nurl = \"smtp://a\"\nsecret = \"tell-nobody\"\nfrom = \"a@b\"\nto = \"c@d\"\n[store]", "@15:10: notify.ops.secret = (hidden)\n  has no user; write the user before the host of `url`"),
    ("[store]", "[notify.ops]\nkind = \"email\"\nurl = \"smtp://u:p@a\"\nsecret = \"tell-nobody\"\nfrom = \"a@b\"\nto = \"c@d\"\n[store]", "@15:10: notify.ops.secret = (hidden)\n  stands in `url` too; leave the password out of `url`"),
    ("[store]", "[notify.ops]\nkind = \"email\"\nurl = \"smtps://u:p/q@a\"\nfrom = \"a@b\"\nto = \"c@d\"\n[store]", "@14:7: notify.ops.url = (hidden)\n  has a sign in its user or password that ends them; write the password as `secret`, or each of these signs as %XX"),
    ("[store]", "[notify.ops]\nkind = \"email\"\nurl = \"smtp://u:p@a?tls=opportunistic\"\nfrom = \"a@b\"\nto = \"c@d\"\n[store]", "@14:7: notify.ops.url = (hidden)\n  would send a password to a server without TLS; leave `tls=opportunistic` out, or the user"),
    ("[store]", "[notify.ops]\nkind = \"email\"\nurl = \"smtp://a?tls=none\"\nfrom = \"a@b\"\nto = \"c@d\"\n[store]", "@14:7: notify.ops.url = (hidden)\n  has a query that is not known; leave it out: smtps:// and smtp:// both use TLS"),
    ("[store]", "[notify.ops]\nkind = \"email\"\nurl = \"smtp://a\"\nfrom = \"a@b\"\n[store]", "@12:1: notify.ops.to\n  is missing; write who shall receive it"),
    ("[store]", "[fleet]\nredis = \"redis://a\"\n[store]", "@12:1: fleet\n  is not yet available in serin VERSION; take it out"),
    ("unit = [\"header:x-user-id\"]", "unit = [\"header:x-user-id\"]\nsessions = \"new_only\"", "@17:12: rollouts.chat.sessions\n  is not yet available in serin VERSION; take it out"),
    // Routes and units.
    ("unit = [\"header:x-user-id\"]", "unit = [\"ai\"]", "@16:9: rollouts.chat.unit[0] = \"ai\"\n  is not yet available in serin VERSION; write \"header:NAME\", \"cookie:NAME\", \"jwt:CLAIM\", \"body:/POINTER\", \"query:NAME\" or \"ip\""),
    ("unit = [\"header:x-user-id\"]", "unit = [\"heder:x-user-id\"]", "@16:9: rollouts.chat.unit[0] = \"heder:x-user-id\"\n  is no place where a unit is found; did you mean \"header\"?"),
    ("unit = [\"header:x-user-id\"]", "unit = [\"header\"]", "@16:9: rollouts.chat.unit[0] = \"header\"\n  does not say which header; write \"header:NAME\", \"cookie:NAME\", \"jwt:CLAIM\", \"body:/POINTER\", \"query:NAME\" or \"ip\""),
    ("unit = [\"header:x-user-id\"]", "unit = [\"body:user\"]", "@16:9: rollouts.chat.unit[0] = \"body:user\"\n  is no JSON pointer; begin it with \"/\", as \"body:/user\""),
    ("unit = [\"header:x-user-id\"]", "unit = [\"jwt:sub\"]", "@14:1: rollouts.chat.jwt\n  is missing; claims are used; write jwt = { key = \"jwks.json\" }, or { unverified = true } where somebody before serin verifies"),
    ("unit = [\"header:x-user-id\"]", "unit = [\"jwt:sub\"]\njwt = { key = \"/nonexistent/jwks.json\" }", "@17:15: rollouts.chat.jwt.key = \"/nonexistent/jwks.json\"\n  cannot be opened (No such file or directory); name a file that serin can read; relative paths start at the configuration's folder"),
    ("path_prefix = \"/\"", "path_prefix = \"v1\"", "@15:37: rollouts.chat.match.path_prefix = \"v1\"\n  is no path; begin with \"/\"; no query, no spaces"),
    ("host = \"*\"", "host = \"https://a\"", "@15:18: rollouts.chat.match.host = \"https://a\"\n  is no host name; write the name alone, without scheme and port"),
    ("[rollouts.chat.stable]", "[rollouts.two]\n[rollouts.two.stable]\nversion = \"x\"\nendpoints = [\"http://a\"]\n[rollouts.chat.stable]", "@17:11: rollouts.two.match\n  is the match of rollouts.chat too (host \"*\", path_prefix \"/\"); give each rollout a host or a path of its own"),
    ("unit = [\"header:x-user-id\"]", "unit = [\"ip\"]\nprotocol = \"opena\"", "@17:12: rollouts.chat.protocol = \"opena\"\n  is none of \"auto\", \"http\", \"openai\", \"anthropic\", \"mcp\"; did you mean \"openai\"?"),
    ("unit = [\"header:x-user-id\"]", "unit = [\"ip\"]\nprices = { input = -1 }", "@17:20: rollouts.chat.prices.input = -1\n  is no price; write US dollars, 0 or more"),
    ("unit = [\"header:x-user-id\"]", "unit = [\"ip\"]\nexposure = { max_cost = \"500\" }", "@14:1: rollouts.chat.exposure.max_cost\n  can never be reached: nothing has a price; write prices for the rollout or its canary"),
    // Cohorts.
    ("[rollouts.chat.stable]", "[[rollouts.chat.cohorts]]\nname = \"i\"\nwhen = { list = \"/nonexistent/units\" }\nto = \"canary\"\n[rollouts.chat.stable]", "@19:17: rollouts.chat.cohorts[0].when.list = \"/nonexistent/units\"\n  cannot be opened (No such file or directory); name a file that serin can read; relative paths start at the configuration's folder"),
    ("[rollouts.chat.stable]", "[[rollouts.chat.cohorts]]\nname = \"i\"\nwhen = { header = \"x\", regex = \"(\" }\nto = \"canary\"\n[rollouts.chat.stable]", "@19:32: rollouts.chat.cohorts[0].when.regex = \"(\"\n  is no regular expression, or too large a one; the syntax is that of the Rust crate regex: no look-around, no back-references"),
    ("[rollouts.chat.stable]", "[[rollouts.chat.cohorts]]\nname = \"i\"\nwhen = { header = \"x\" }\nweight = 120\n[rollouts.chat.stable]", "@20:10: rollouts.chat.cohorts[0].weight = 120 %\n  is not between 0 and 100 %; write a percentage"),
    ("[rollouts.chat.stable]", "[[rollouts.chat.cohorts]]\nname = \"i\"\nwhen = { header = \"x\" }\nweight = 20\nto = \"canary\"\n[rollouts.chat.stable]", "@21:6: rollouts.chat.cohorts[0].to = \"canary\"\n  stands beside a weight; write to, or weight, not both"),
    ("[rollouts.chat.stable]", "[[rollouts.chat.cohorts]]\nname = \"i\"\nwhen = {}\nto = \"canary\"\n[rollouts.chat.stable]", "@19:8: rollouts.chat.cohorts[0].when\n  is empty: everybody would belong to it; write who belongs to it"),
    ("[rollouts.chat.stable]", "[[rollouts.chat.cohorts]]\nname = \"i\"\nwhen = { is = [\"a\"] }\nto = \"canary\"\n[rollouts.chat.stable]", "@19:8: rollouts.chat.cohorts[0].when\n  has a test and nothing to test; add header, cookie, claim, query or path = true"),
    // Versions.
    ("version = \"b\"\n", "", "@20:1: rollouts.chat.canary.version\n  is missing; write the version's name: tags, metrics and the journal carry it"),
    ("version = \"b\"", "version = \"a\"", "@21:11: rollouts.chat.canary.version = \"a\"\n  is the version of stable too; give the canary a name of its own: everything counted is counted by it"),
    ("endpoints = [\"http://127.0.0.1:9002\"]", "", "@20:1: rollouts.chat.canary.endpoints\n  is missing; write at least one, as [\"http://127.0.0.1:9001\"]"),
    ("endpoints = [\"http://127.0.0.1:9002\"]", "endpoints = []", "@20:1: rollouts.chat.canary.endpoints\n  is empty; write at least one, as [\"http://127.0.0.1:9001\"]"),
    ("http://127.0.0.1:9002", "127.0.0.1:9002", "@22:14: rollouts.chat.canary.endpoints[0] = \"127.0.0.1:9002\"\n  has no scheme; write \"http://host:port\" or \"https://host\""),
    ("http://127.0.0.1:9002", "http://me:secret@127.0.0.1:9002", "@22:14: rollouts.chat.canary.endpoints[0] = (hidden)\n  carries credentials; send them by headers = { set = { authorization = \"${VAR}\" } }"),
    ("http://127.0.0.1:9002", "http://127.0.0.1:9002/v1", "@22:14: rollouts.chat.canary.endpoints[0] = \"http://127.0.0.1:9002/v1\"\n  carries a path; write it as add_prefix: an endpoint is scheme, host and port"),
    ("http://127.0.0.1:9002", "http://127.0.0.1:8080", "@22:14: rollouts.chat.canary.endpoints[0] = \"http://127.0.0.1:8080\"\n  is a listener of serin itself; name the model's address: requests would go in a circle"),
    ("version = \"b\"", "version = \"b\"\nheaders = { set = { host = \"x\" } }", "@22:21: rollouts.chat.canary.headers.set.host\n  is a header that serin sets itself; use the key host"),
    ("version = \"b\"", "version = \"b\"\ntls = { min_version = \"1.2\" }", "@22:7: rollouts.chat.canary.tls\n  is written, but no endpoint begins with https://; write https://, or take tls out"),
    ("version = \"b\"", "version = \"b\"\nejection = { at_most = \"half\" }", "@22:24: rollouts.chat.canary.ejection.at_most = \"half\"\n  is no share of the endpoints; write \"0%\" to \"100%\""),
    // Plan.
    ("weight = 10.0", "weight = 10.00001", "@26:10: rollouts.chat.plan.stages[0].weight = 10.00001 %\n  is finer than a bucket; weights have steps of 0.001 %"),
    ("weight = 10.0", "weight = 101", "@26:10: rollouts.chat.plan.stages[0].weight = 101 %\n  is not between 0 and 100 %; write a percentage"),
    ("weight = 10.0", "weight = 0", "@26:10: rollouts.chat.plan.stages[0].weight = 0 %\n  sends nobody to the canary; only a stage with cohorts stands at 0"),
    ("weight = 10.0", "weight = 100", "@29:10: rollouts.chat.plan.stages[1].weight = 100 %\n  is not above the stage before it (100 %); weights of a plan rise, list them in order"),
    ("weight = 100.0", "weight = 5", "@29:10: rollouts.chat.plan.stages[1].weight = 5 %\n  is not above the stage before it (10 %); weights of a plan rise, list them in order"),
    ("weight = 100.0", "weight = 50", "@29:10: rollouts.chat.plan.stages[1].weight = 50 %\n  is the last stage and not 100 %; end the plan with weight = 100.0"),
    ("soak = \"72h\"", "preset = \"standard\"", "@24:10: rollouts.chat.plan.preset = \"standard\"\n  stands beside stages; write a preset or stages, not both"),
    ("soak = \"72h\"", "holdback = 95.0", "@24:12: rollouts.chat.plan.holdback = 95 %\n  leaves the last stage no more than the one before it (10 %); write less; 1.0 is usual, 0 is none"),
    ("soak = \"72h\"", "deadline = \"4\"", "@24:12: rollouts.chat.plan.deadline = \"4\"\n  is no multiple of the residence; write \"4x\"; at least \"1x\""),
    ("soak = \"72h\"", "start = \"automatic\"", "@24:9: rollouts.chat.plan.start = \"automatic\"\n  is none of \"manual\", \"on_new_version\""),
    ("soak = \"72h\"", "not_before = \"2026-12-01 09:00\"", "@24:14: rollouts.chat.plan.not_before = \"2026-12-01 09:00\"\n  cannot be read; a time is written as RFC 3339 has it: \"2026-12-01T09:00:00+01:00\", or with Z"),
    ("soak = \"72h\"", "hours = \"Mon-Fry 09:00-17:00\"", "@24:9: rollouts.chat.plan.hours = \"Mon-Fry 09:00-17:00\"\n  cannot be read; \"Fry\" is no day: use Mon, Tue, Wed, Thu, Fri, Sat, Sun, with - or commas, or daily"),
    ("residence = \"24h\"", "residence = \"24h\"\ncohorts = [\"beta\"]", "@28:12: rollouts.chat.plan.stages[0].cohorts[0] = \"beta\"\n  names the cohort \"beta\", which there is not; write [[rollouts.NAME.cohorts]] with that name"),
    ("unit = [\"header:x-user-id\"]", "unit = [\"ip\"]\nweight = 5.0", "@17:10: rollouts.chat.weight = 5 %\n  stands beside a plan; write a weight (a plain split) or a plan, not both"),
    // Gates.
    ("gates.error_rate", "gates.error_rat", "@30:22: rollouts.chat.gates.error_rat\n  is no metric of a gate; did you mean \"error_rate\"?"),
    ("gates.error_rate", "gates.\"prometheus:gpu\"", "@30:22: rollouts.chat.gates.\"prometheus:gpu\"\n  names the query \"gpu\", which there is not; write [rollouts.NAME.queries.gpu] with url, stable and canary\n@31:12: rollouts.chat.gates.\"prometheus:gpu\".rollback = \"+0.5pp\"\n  counts percentage points, and prometheus:gpu is no rate; write \"+50%\"\n@32:11: rollouts.chat.gates.\"prometheus:gpu\".promote = \"+0.1pp\"\n  counts percentage points, and prometheus:gpu is no rate; write \"+50%\""),
    ("rollback = \"+0.5pp\"", "rollback = \"0.5pp\"", "@31:12: rollouts.chat.gates.error_rate.rollback = \"0.5pp\"\n  has no sign; write \"+0.5pp\" or \"+50%\""),
    ("rollback = \"+0.5pp\"", "rollback = \"-0.5pp\"", "@31:12: rollouts.chat.gates.error_rate.rollback = \"-0.5pp\"\n  points to the better side: error_rate is worse when higher; write \"+0.5pp\" or \"+50%\""),
    ("rollback = \"+0.5pp\"", "rollback = \"+200ms\"", "@31:12: rollouts.chat.gates.error_rate.rollback = \"+200ms\"\n  is a time, and error_rate is none; write \"+0.5pp\" or \"+50%\""),
    ("rollback = \"+0.5pp\"", "rollback = \"+50%\"", "@32:11: rollouts.chat.gates.error_rate.promote = \"+0.1pp\"\n  is of another kind than rollback, so that neither is surely the tighter; write both as \"+0.5pp\", both as \"+200ms\", or both as \"+50%\""),
    ("rollback = \"+0.5pp\"", "rollback = \"any\"", "@31:12: rollouts.chat.gates.error_rate.rollback = \"any\"\n  is for safety_violations alone; write \"+0.5pp\" or \"+50%\""),
    ("promote = \"+0.1pp\"", "promote = \"+0.6pp\"", "@32:11: rollouts.chat.gates.error_rate.promote = \"+0.6pp\"\n  is not tighter than rollback (\"+0.5pp\"); promote is what is surely fine, rollback what is surely bad; between them lies doubt"),
    ("promote = \"+0.1pp\"", "limit = \"500ms\"", "@32:9: rollouts.chat.gates.error_rate.limit = \"500ms\"\n  is no value of this metric; write \"5%\""),
    ("promote = \"+0.1pp\"", "on = \"alarm\"", "@32:6: rollouts.chat.gates.error_rate.on = \"alarm\"\n  is none of \"rollback\", \"step-back\", \"hold\""),
    ("gates.error_rate", "gates.latency_p99", "@31:12: rollouts.chat.gates.latency_p99.rollback = \"+0.5pp\"\n  counts percentage points, and latency_p99 is no rate; write \"+200ms\" or \"+50%\"\n@32:11: rollouts.chat.gates.latency_p99.promote = \"+0.1pp\"\n  counts percentage points, and latency_p99 is no rate; write \"+200ms\" or \"+50%\""),
    ("[rollouts.chat.gates.error_rate]", "[rollouts.chat.evaluator]\nalpha = 2\n[rollouts.chat.gates.error_rate]", "@31:9: rollouts.chat.evaluator.alpha = 2\n  is no chance of error; write more than 0 and at most 0.5; 0.01 is one in a hundred"),
];

#[test]
fn every_fault_says_where_what_why_and_what_to_do() {
    assert!(parse_with(GOOD).is_ok());
    for (from, to, expect) in CASES {
        assert!(GOOD.contains(from), "{from}");
        let faults = parse_with(&GOOD.replacen(from, to, 1)).expect_err(to);
        let all: Vec<String> = faults.faults.iter().map(ToString::to_string).collect();
        let expect = expect.replace('@', "t.toml:").replace("VERSION", env!("CARGO_PKG_VERSION"));
        assert_eq!(all.join("\n"), expect, "{to}");
    }
}

#[test]
fn all_faults_of_a_file_are_told_at_once_in_its_order() {
    let mut text = GOOD.to_owned();
    // Not those that exclude one another: one of each area.
    for (from, to) in [
        ("roles = [\"owner\"]", "roles = [\"boss\"]"),
        ("connections = 10", "connections = \"10\"\nzebra = 1"),
        ("version = \"b\"", "version = \"a\""),
        ("weight = 100.0", "weight = 5"),
        ("gates.error_rate", "gates.error_rat"),
    ] {
        text = text.replacen(from, to, 1);
    }
    let faults = parse_with(&text).unwrap_err();
    let paths: Vec<&str> = faults.faults.iter().map(|fault| fault.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "admin.tokens[0].roles[0]",
            "limits.connections",
            "limits.zebra",
            "rollouts.chat.canary.version",
            "rollouts.chat.plan.stages[1].weight",
            "rollouts.chat.gates.error_rat"
        ]
    );
    assert!(faults.to_string().ends_with("\n6 faults"));
}

#[test]
fn errors_of_syntax_come_with_the_unknown_keys_beside_them() {
    let text =
        GOOD.replace("connections = 10", "connections = \nzebra = 1").replace("path = \"state\"", "path = \"state");
    let faults = parse_with(&text).unwrap_err();
    let lines: Vec<usize> =
        faults.faults.iter().filter(|fault| fault.path.is_empty()).map(|fault| fault.line).collect();
    assert!(lines.contains(&11) && lines.contains(&14), "{faults}");
    assert!(faults.faults.iter().any(|fault| fault.path == "limits.zebra"), "{faults}");
    assert!(!faults.to_string().contains("is missing"), "{faults}");
}

#[test]
fn a_fault_as_json_has_its_parts_apart() {
    let faults = parse_with(&GOOD.replace("weight = 100.0", "weight = 5")).unwrap_err();
    let expect = serde_json::json!({
        "file": "t.toml", "line": 29, "column": 10, "path": "rollouts.chat.plan.stages[1].weight", "value": "5 %",
        "reason": "is not above the stage before it (10 %)", "remedy": "weights of a plan rise, list them in order",
    });
    assert_eq!(faults.json(), serde_json::json!({"ok": false, "faults": [expect], "warnings": []}));
    assert_eq!(json_of(&parse_with(GOOD).unwrap())["ok"], true);
}

#[test]
fn a_missing_file_is_a_fault_of_its_own() {
    let faults = load("/nonexistent/serin.toml".as_ref()).unwrap_err();
    let expect = "/nonexistent/serin.toml\n  cannot be opened (No such file or directory); name a TOML file with -c or SERIN_CONFIG\n1 fault";
    assert_eq!(faults.to_string(), expect);
}

#[test]
fn no_secret_is_ever_shown() {
    let text = GOOD
        .replace("0123456789abcdef-alice", "tell-nobody with a space")
        .replace(
            "[store]",
            "[notify.ops]\nkind = \"slack\"\nurl = \"tell-nobody\"\nsecret = [\"tell-nobody\"]\n[store]",
        )
        .replace("version = \"b\"", "version = \"b\"\nheaders = { set = { a = \"tell-nobody\\n\" } }")
        .replace("http://127.0.0.1:9002", "http://tell-nobody@a");
    let faults = parse_with(&text).unwrap_err();
    assert_eq!(faults.faults.len(), 5, "{faults}");
    assert!(
        !faults.to_string().contains("tell-nobody") && !faults.json().to_string().contains("tell-nobody"),
        "{faults}"
    );
    let good = GOOD
        .replace("0123456789abcdef-alice", "tell-nobody-tell-nobody")
        .replace("unit =", "salt = \"tell-nobody\"\nunit =")
        .replace("version = \"b\"", "version = \"b\"\nheaders = { set = { a = \"tell-nobody\" } }");
    assert!(!format!("{:?}", parse_with(&good).unwrap()).contains("tell-nobody"));
}

#[test]
fn variables_and_files_are_replaced_after_parsing() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("token"), "a-secret-from-a-file\n").unwrap();
    let version = |text: &str| {
        let text = GOOD.replace("version = \"a\"", &format!("version = \"{text}\""));
        let file = folder.path().join("serin.toml").display().to_string();
        let variables = |name: &str| match name {
            "SET" => Some("set\" # no TOML".replace(' ', "_")),
            "EMPTY" => Some(String::new()),
            _ => None,
        };
        parse(&text, &file, &variables).unwrap().rollouts[0].stable.name.to_string()
    };
    assert_eq!(version("${SET}"), "set\"_#_no_TOML");
    assert_eq!(version("x-${UNSET:-y}-${EMPTY:-z}"), "x-y-z");
    assert_eq!(version("${file:token}"), "a-secret-from-a-file");
    assert_eq!(version("$${SET}"), "${SET}");
}

#[test]
fn keys_that_nobody_heeds_are_said_and_the_same_keys_are_silent_where_they_are_heeded() {
    let warned = |protocol: &str, judged: bool, text: &str| {
        let file = format!(
            "[listeners.edge]\nlisten = \"[::]:0\"\n[store]\npath = \"x\"\n[rollouts.chat]\nunit = \"header:u\"\n\
             protocol = \"{protocol}\"\nexposure = {{ max_users = 5 }}\nsafety = {{ rules = [\"bad\"] }}\n\
             samples = {{ share = \"1%\", text = \"{text}\" }}\n\
             [rollouts.chat.stable]\nversion = \"a\"\nendpoints = [\"http://a\"]\n\
             [rollouts.chat.gates.drift_language]\n[rollouts.chat.evaluator]\nenabled = {judged}\n"
        );
        let config = parse_with(&file).unwrap_or_else(|faults| panic!("{faults}"));
        let mut paths: Vec<_> = config.warnings.iter().map(|warning| warning.path.clone()).collect();
        paths.sort();
        paths
    };
    let key = |names: &[&str]| names.iter().map(|name| format!("rollouts.chat.{name}")).collect::<Vec<_>>();
    assert_eq!(warned("openai", true, "redacted"), key(&[]));
    assert_eq!(warned("auto", false, "redacted"), key(&["exposure"]));
    let unread = key(&["gates.drift_language", "safety.rules[0]", "samples"]);
    assert_eq!(warned("http", true, "redacted"), unread);
    assert_eq!(warned("http", true, "none"), unread[..2]);
}

#[test]
fn what_is_not_written_has_its_default() {
    let text =
        "[listeners.edge]\nlisten = \"[::]:0\"\n[rollouts.chat.stable]\nversion = \"a\"\nendpoints = [\"http://a\"]\n";
    let config = parse_with(text).unwrap();
    assert_eq!(config.limits, Limits::default());
    assert_eq!(config.drain, Drain::default());
    assert_eq!(config.admin.listen.unwrap().to_string(), "127.0.0.1:8081");
    let rollout = &config.rollouts[0];
    assert_eq!(rollout.route, Route { host: HostRule::Any, path_prefix: "/".to_owned() });
    assert_eq!((rollout.weight, rollout.plan.is_none()), (Some(crate::split::Weight::ZERO), true));
    assert_eq!(rollout.fallback, Fallback::Connect);
    assert!(rollout.tag_responses && rollout.evaluator.enabled && rollout.baseline.enabled);
    assert_eq!(*rollout.policy, crate::judge::Policy::default().with_stall());
    assert!(rollout.policy.rules.iter().all(|rule| !rule.required));
    let warnings: Vec<&str> = config.warnings.iter().map(|warning| warning.path.as_str()).collect();
    assert_eq!(warnings, ["store", "rollouts.chat.unit"]);
}

#[test]
fn margins_become_those_of_the_policy() {
    use crate::judge::Margin::{Absolute, Relative};
    for (gate, body, promote, rollback) in [
        ("error_rate", "rollback = \"+0.5pp\"\npromote = \"+0.1pp\"", Absolute(0.001), Absolute(0.005)),
        ("error_rate", "rollback = \"+1pp\"", Absolute(0.002), Absolute(0.01)),
        ("error_rate", "promote = \"+20%\"\nrollback = \"+100%\"", Relative(1.2), Relative(2.0)),
        ("latency_p99", "rollback = \"+200ms\"\npromote = \"+50ms\"", Absolute(50.0), Absolute(200.0)),
        ("latency_p99", "limit = \"1.5s\"", Relative(1.2), Relative(1.5)),
        ("quality_mean", "rollback = \"-10%\"\npromote = \"-2%\"", Relative(0.98), Relative(0.9)),
        ("eval_pass_rate", "rollback = \"-5pp\"\npromote = \"-1pp\"", Absolute(0.01), Absolute(0.05)),
        ("\"score:cost of ink\"", "direction = \"higher\"", Relative(1.02), Relative(1.1)),
    ] {
        let text = GOOD.replace("gates.error_rate", &format!("gates.{gate}"));
        let text = text.replace("rollback = \"+0.5pp\"\npromote = \"+0.1pp\"", body);
        let config = parse_with(&text).unwrap_or_else(|faults| panic!("{faults}"));
        let rule = &config.rollouts[0].policy.rules[0];
        let near = |a, b| match (a, b) {
            (Absolute(a), Absolute(b)) | (Relative(a), Relative(b)) => f64::abs(a - b) < 1e-12,
            _ => false,
        };
        assert!(near(rule.promote, promote) && near(rule.rollback, rollback), "{gate} {body}: {rule:?}");
        assert!(rule.required, "a gate that the user wrote holds without data");
        if body.contains("limit") {
            assert_eq!(rule.limit, Some(1_500.0));
        }
    }
}

#[test]
fn every_metric_of_the_interface_is_a_gate() {
    for metric in check_gates::METRICS {
        let drift = crate::judge::drift::rules(metric).is_some_and(|rules| rules.len() >= 2);
        assert!(drift || crate::judge::Rule::gate(metric).is_some(), "{metric}");
    }
    assert!(crate::judge::drift::GATES.iter().all(|gate| check_gates::METRICS.contains(gate)));
}

#[test]
fn a_gate_of_drift_has_its_margins_to_either_side_and_holds() {
    use crate::judge::Margin::{Absolute, Relative};
    let rules = |gate: &str, body: &str| {
        let text = GOOD.replace("gates.error_rate", &format!("gates.{gate}"));
        let text = text.replace("rollback = \"+0.5pp\"\npromote = \"+0.1pp\"", body);
        parse_with(&text).map(|config| config.rollouts[0].policy.rules.clone())
    };
    let length = rules("drift_length", "promote = \"+25%\"\nrollback = \"+50%\"").unwrap();
    let margins: Vec<_> = length.iter().map(|rule| (&*rule.name, rule.promote, rule.rollback)).take(2).collect();
    assert_eq!(
        margins,
        [
            ("drift_length/longer", Relative(1.25), Relative(1.5)),
            ("drift_length/shorter", Relative(0.75), Relative(0.5))
        ]
    );
    let language = rules("drift_language", "rollback = \"+50pp\"\non = \"rollback\"").unwrap();
    let drift = language.iter().filter(|rule| rule.name.starts_with("drift_language/"));
    assert!(
        drift.clone().count() == crate::names::Script::ALL.len()
            && drift.clone().all(|rule| rule.rollback == Absolute(0.5))
    );
    assert!(drift.clone().all(|rule| rule.on == crate::judge::On::Rollback));
    assert!(length.iter().take(2).all(|rule| rule.on == crate::judge::On::Hold));
    for (gate, body, says) in [
        ("drift_tools", "limit = 0.5", "means nothing for drift"),
        ("drift_tools", "rollback = \"+50%\"", "percentage points"),
        ("drift_length", "rollback = \"+5pp\"", "is no rate"),
        ("drift_length", "direction = \"lower\"", "means nothing for drift"),
    ] {
        let faults = rules(gate, body).unwrap_err().to_string();
        assert!(faults.contains(says), "{faults}");
    }
}

#[test]
fn certificates_and_keys_are_opened_parsed_and_matched() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
    let one = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let two = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    write("one.pem", &one.cert.pem());
    write("one.key", &one.signing_key.serialize_pem());
    write("two.key", &two.signing_key.serialize_pem());
    write("empty.pem", "nothing here");
    let faults = |certificate: &str, key: &str| {
        let tls = format!(
            "listen = \"0.0.0.0:8080\"\ntls = {{ certificate = \"{certificate}\", key = \"{key}\", client_ca = \"one.pem\" }}"
        );
        let text = GOOD.replace("listen = \"0.0.0.0:8080\"", &tls);
        let file = folder.path().join("serin.toml").display().to_string();
        match parse(&text, &file, &|_| None) {
            Ok(config) => {
                assert_eq!(config.listeners[0].tls.as_ref().unwrap().key, folder.path().join(key));
                Vec::new()
            }
            Err(faults) => faults.faults.into_iter().map(|fault| format!("{}: {}", fault.path, fault.reason)).collect(),
        }
    };
    let (certificate, key) = ("listeners.edge.tls.certificate", "listeners.edge.tls.key");
    assert_eq!(faults("one.pem", "one.key"), Vec::<String>::new());
    assert_eq!(faults("one.pem", "two.key"), [format!("{key}: does not belong to the certificate")]);
    assert_eq!(faults("empty.pem", "one.key"), [format!("{certificate}: holds no certificate in PEM form")]);
    assert_eq!(faults("one.pem", "one.pem"), [format!("{key}: holds no private key in PEM form")]);
    assert_eq!(faults("one.pem", "none"), [format!("{key}: cannot be opened (No such file or directory)")]);
}

#[test]
fn cohorts_are_compiled_and_lists_are_read() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("units"), "# testers\nanna\n\n  bert \n").unwrap();
    let when = "when = [{ list = \"units\" }, { ip = \"10.1.2.3/8\" }, { header = \"X-Org\", cookie = \"o\", prefix = \"ac\" }]";
    let cohort = format!("[[rollouts.chat.cohorts]]\nname = \"i\"\n{when}\nweight = 20\n[rollouts.chat.stable]");
    let file = folder.path().join("serin.toml").display().to_string();
    let config = parse(&GOOD.replace("[rollouts.chat.stable]", &cohort), &file, &|_| None).unwrap();
    let cohort = &config.rollouts[0].cohorts[0];
    let [list, ip, header, cookie] = cohort.when.as_slice() else { panic!("{:?}", cohort.when) };
    assert!(list.test.passes("anna") && list.test.passes("bert") && !list.test.passes("# testers"));
    assert!(ip.test.passes("10.9.9.9") && !ip.test.passes("11.0.0.1"));
    assert_eq!(header.subject, Subject::Header(http::HeaderName::from_static("x-org")));
    assert!(cookie.test.passes("acme") && !cookie.test.passes("bcme"));
    assert_eq!(cohort.to, CohortTo::Weight(crate::split::Weight::from_buckets(20_000)));
}

#[test]
fn a_reload_refuses_by_name_what_needs_a_restart() {
    let old = parse_with(GOOD).unwrap();
    let changes = |edits: &[(&str, &str)]| {
        let text = edits.iter().fold(GOOD.to_owned(), |text, (from, to)| text.replacen(from, to, 1));
        let new = parse_with(&text).unwrap_or_else(|faults| panic!("{faults}"));
        reload::compare(&old, &new).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert!(changes(&[("connections = 10", "connections = 20"), ("version = \"b\"", "version = \"c\"")]).is_empty());
    assert!(changes(&[("0123456789abcdef-alice", "0123456789abcdef-another"), ("+0.5pp", "+0.6pp")]).is_empty());
    assert_eq!(
        changes(&[
            ("127.0.0.1:8081", "127.0.0.1:8082"),
            ("0.0.0.0:8080", "0.0.0.0:8090"),
            ("[limits]", "[listeners.two]\nlisten = \"0.0.0.0:8091\"\n[server]\nworkers = 3\n[limits]"),
            ("path = \"state\"", "path = \"elsewhere\""),
        ]),
        [
            "admin.listen: 127.0.0.1:8081 in force, 127.0.0.1:8082 in the file; needs a restart",
            "listeners.edge.listen: 0.0.0.0:8080 in force, 0.0.0.0:8090 in the file; needs a restart",
            "listeners.two: nothing in force, 0.0.0.0:8091 in the file; needs a restart",
            "server.workers: auto in force, 3 in the file; needs a restart",
            "store.path: state in force, elsewhere in the file; needs a restart",
        ]
    );
}

#[test]
fn every_key_stands_in_the_reference_and_in_the_full_example() {
    let folder = env!("CARGO_MANIFEST_DIR");
    let reference = std::fs::read_to_string(format!("{folder}/docs/configuration.md")).unwrap();
    let full = std::fs::read_to_string(format!("{folder}/config/full.toml")).unwrap();
    let all = keys();
    assert!(all.len() > 100);
    for key in all {
        // The keys of stable and canary are the same; the reference names them once, as VERSION.
        let name = key.replace(".stable.", ".VERSION.").replace(".canary.", ".VERSION.");
        let name = if key.contains(".queries.") { key.clone() } else { name };
        assert!(reference.contains(&format!("`{name}`")), "docs/configuration.md does not name `{name}`");
        let last = key.rsplit('.').next().unwrap_or_default();
        let later = ["fleet", "sessions", "shadow"].contains(&last);
        let written = [" ", "{", "\n"].iter().any(|before| full.contains(&format!("{before}{last} = ")));
        assert!(later || written, "config/full.toml does not have {key}");
    }
}

#[test]
fn no_text_panics_the_check() {
    let full = std::fs::read_to_string(format!("{}/config/full.toml", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let bytes = full.as_bytes();
    for at in (0..bytes.len()).step_by(11) {
        let end = (at + 5).min(bytes.len());
        let without = [&bytes[..at], &bytes[end..]].concat();
        for text in [String::from_utf8_lossy(&bytes[..at]), String::from_utf8_lossy(&without)] {
            if let Err(faults) = parse_with(&text) {
                assert!(!faults.faults.is_empty());
                assert!(!faults.to_string().contains("failed to name"), "{faults}");
            }
        }
    }
    for text in ["", "[", "a.b.c", &"[".repeat(5_000), "\u{0}", "rollouts = 1", "[rollouts.x]", "[rollouts.x.canary]"] {
        assert!(parse_with(text).is_err());
    }
}

#[test]
fn the_configurations_inside_the_manifests_are_good() {
    for name in ["edge", "sidecar"] {
        let path = format!("{}/deploy/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
        let manifest = std::fs::read_to_string(path).unwrap();
        let (_, inside) = manifest.split_once("serin.toml: |\n").unwrap();
        let lines = inside.lines().take_while(|line| line.is_empty() || line.starts_with("    "));
        let text: Vec<&str> = lines.map(|line| line.get(4..).unwrap_or_default()).collect();
        assert!(text.len() > 10, "{name}");
        let config = parse_with(&text.join("\n")).unwrap_or_else(|faults| panic!("{name}: {faults}"));
        assert!(config.warnings.is_empty(), "{name}: {:?}", config.warnings);
    }
}

#[test]
fn a_signing_key_is_an_ed25519_key_or_a_fault_and_is_never_shown() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key.pem");
    let small = "[listeners.e]\nlisten = \"127.0.0.1:0\"\n[rollouts.c]\nunit = [\"ip\"]\nstable = { version = \"a\", endpoints = [\"http://127.0.0.1:1\"] }\n";
    let text = format!("{small}[store]\npath = \"state\"\nsigning_key = \"{}\"\n", file.display());
    let read = || parse(&text, "t", &|_| None);
    assert!(read().unwrap_err().to_string().contains("store.signing_key"), "there is no such file");
    for wrong in ["nonsense".to_owned(), rcgen::KeyPair::generate().unwrap().serialize_pem()] {
        std::fs::write(&file, &wrong).unwrap();
        let faults = read().unwrap_err().to_string();
        assert!(faults.contains("holds no ed25519 private key in PEM form (PKCS#8)"), "{faults}");
    }
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519).unwrap();
    std::fs::write(&file, pair.serialize_pem()).unwrap();
    let config = read().unwrap();
    let shown = format!("{:?}", config.store);
    assert!(shown.contains("key.pem") && !shown.contains("45, 45"), "{shown}");
    let without = parse(&text.replace("signing_key", "# signing_key"), "t", &|_| None).unwrap();
    let changes = crate::config::reload::compare(&config, &without);
    assert!(changes.iter().any(|change| change.key == "store.signing_key"), "{changes:?}");
}

//! The rollout object of the admin API, field by field: every name, and what kind of value it has.

use serde_json::{Value, json};
use serin::clock::Clock;
use serin::demo::{ModelServer, Script};

use crate::client::{Admin, Caller};
use crate::fixture::{House, head, rollout, shared, until};

/// What is not as the template says: `string`, `number`, `integer`, `boolean`, with `?` where null is possible too; a list's
/// one item stands for all.
fn faults(path: &str, template: &Value, value: &Value, found: &mut Vec<String>) {
    match template {
        Value::String(kind) => {
            let (kind, may_be_null) = kind.strip_suffix('?').map_or((kind.as_str(), false), |kind| (kind, true));
            let fits = match kind {
                "string" => value.is_string(),
                "number" => value.is_number(),
                "integer" => value.is_u64(),
                "boolean" => value.is_boolean(),
                other => panic!("{other} is no kind"),
            };
            if !(fits || may_be_null && value.is_null()) {
                found.push(format!("{path}: {value} is no {kind}"));
            }
        }
        Value::Array(items) => match value.as_array() {
            None => found.push(format!("{path}: {value} is no list")),
            Some(all) => all.iter().for_each(|item| faults(&format!("{path}[]"), &items[0], item, found)),
        },
        Value::Object(fields) => {
            for (name, template) in fields {
                let path = format!("{path}.{name}");
                match value.get(name) {
                    None => found.push(format!("{path} is missing")),
                    Some(value) => faults(&path, template, value, found),
                }
            }
        }
        Value::Null => {
            if !value.is_null() {
                found.push(format!("{path}: {value} is not null"));
            }
        }
        other => panic!("{other}"),
    }
}

fn arm() -> Value {
    json!({"version": "string", "users": "integer", "requests": "integer",
           "share": {"users": "number?", "requests": "number?", "cost": "number?"},
           "endpoints": {"healthy": "integer", "all": "integer"}})
}

/// The object of the interface, section 5, in a stage.
fn whole() -> Value {
    json!({
        "name": "string", "phase": "string", "why": "string", "verdict": "string", "generation": "integer",
        "weight": "number", "weight_actual": "number?", "stages": ["number"],
        "stage": {"index": "integer", "of": "integer", "weight": "number", "entered_at": "string",
                  "residence_left_s": "number", "deadline_at": "string?", "waits_for": "string?",
                  "approvals": {"needed": "integer", "given": ["string"]}},
        "started_by": "string?", "paused": null, "soak_ends_at": "string?", "next_version": "string?", "latch": null,
        "arms": {"stable": arm(), "baseline": arm(), "canary": arm()},
        "gates": [{"name": "string", "unit": "string", "on": "string", "required": "boolean", "result": "string",
                   "stable": "number?", "canary": "number?", "difference": "number?", "interval": "string?",
                   "promote": "number?", "rollback": "number?", "limit": "number?",
                   "evidence": {"rollback": "number", "bar": "number", "promote": "number", "promote_bar": "number"},
                   "samples": "integer", "samples_needed": "integer?", "users": "integer", "design_effect": "number",
                   "eta_s": "number?", "why": "string"}],
        "exposed": {"users": "integer", "requests": "integer", "cost_usd": "number"},
        "heartbeat_age_s": "number", "allowed": ["string"],
    })
}

#[track_caller]
fn fits(template: &Value, said: &Value) {
    let (mut found, mut said) = (Vec::new(), said.clone());
    // An interval is two numbers, or null.
    for gate in said["gates"].as_array_mut().unwrap() {
        if let Some(pair) = gate["interval"].as_array() {
            assert!(pair.len() == 2 && pair.iter().all(Value::is_number), "{gate}");
            gate["interval"] = Value::Null;
        }
    }
    faults("rollout", template, &said, &mut found);
    assert!(found.is_empty(), "{found:#?}\n{said:#}");
}

#[test]
fn every_field_of_the_rollout_object_has_the_name_and_the_kind_that_the_interface_promises() {
    let _machine = shared();
    let server = ModelServer::start(Script::named("a"), 71, Clock::system()).unwrap();
    let plan = "[[rollouts.chat.plan.stages]]\nweight = 50.0\nresidence = \"24h\"\napproval = \"one\"\n\
                [[rollouts.chat.plan.stages]]\nweight = 100.0\n\
                [rollouts.chat.evaluator]\nwarm_up = \"0s\"\n";
    let text = head(1, false) + &rollout("chat", server.addr(), server.addr(), "") + plan;
    let house = House::start(&text, &Clock::system());
    let mut admin = Admin::new(house.admin());
    let look = |admin: &mut Admin| admin.must("GET", "/api/v1/rollouts/chat", &json!(null));
    let with = |changes: &[(&str, Value)]| {
        let mut template = whole();
        changes.iter().for_each(|(key, value)| template[*key] = value.clone());
        template
    };
    let mut idle = whole();
    // Nothing has been entered yet: what a stage would show is the plan's first one, or null.
    idle.as_object_mut().unwrap().remove("stage");
    fits(&idle, &look(&mut admin));
    admin.verb("chat", "start");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let mut caller = Caller::connect(house.edge()).await.unwrap();
        for user in 0..200 {
            assert_eq!(caller.get("/chat/x", &format!("u{user}")).await.unwrap().status, 200);
        }
    });
    let running = until("numbers", || {
        Some(look(&mut admin)).filter(|said| said["gates"][0]["samples"].as_u64().is_some_and(|n| n > 10))
    });
    fits(&whole(), &running);
    // With traffic there are numbers where null was allowed.
    let gate = &running["gates"][0];
    assert!(["stable", "canary", "difference"].iter().all(|key| gate[*key].is_number()), "{gate:#}");
    assert!(running["weight_actual"].is_number() && running["gates"][0]["interval"].is_array(), "{running:#}");
    assert_eq!(running["arms"]["stable"]["endpoints"], json!({"healthy": 1, "all": 1}));
    let list = admin.must("GET", "/api/v1/rollouts", &json!(null));
    fits(&whole(), &list["items"][0]);
    let paused = admin.verb("chat", "pause");
    fits(&with(&[("paused", json!({"from": "string", "by": "string", "why": "string"}))]), &paused);
    let latched = admin.verb("chat", "abort");
    let latch = json!({"at": "string", "actor": "string", "reason": "string"});
    let mut template = with(&[("latch", latch)]);
    template.as_object_mut().unwrap().remove("stage");
    fits(&template, &latched);
    assert_eq!((&latched["phase"], &latched["weight"]), (&json!("rolled_back"), &json!(0.0)));
}

//! Checks one rollout: route, units, cohorts, prices, exposure, and how its parts fit.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use super::check::Check;
use super::fault::{Place, nearest};
use super::files;
use super::model::{Limits, Token};
use super::model_rollout::{
    Baseline, Cohort, CohortTo, Condition, Exposure, Fallback, Feedback, HostRule, Jwt, OnSpent, Pattern, Rollout,
    Route, Safety, SampleText, Samples, Subject, Test, Trace, UnitList, UnitSource, Version,
};
use super::raw;
use super::read::{At, File, Many, Named, Scalar, Text, TextOrTrue};
use crate::names::RolloutName;
use crate::split::Weight;
use crate::split::weight::WeightError;
use crate::wire::{Protocol, SafetyRules};

/// What a unit can be taken from.
const UNIT_KINDS: [&str; 6] = ["header", "cookie", "jwt", "body", "query", "ip"];

impl Check<'_, '_> {
    /// All rollouts. `None` after a fault that leaves a hole.
    pub(crate) fn rollouts(
        &mut self,
        root: &Place,
        raw: Option<Named<raw::Rollout>>,
        limits: &Limits,
        bound: &[SocketAddr],
        tokens: &[Token],
    ) -> Option<Vec<Arc<Rollout>>> {
        let raw = raw.unwrap_or_default().0;
        if raw.is_empty() {
            self.sink.missing(root, "rollouts", "write [rollouts.NAME] with a stable version");
        }
        let mut whole = true;
        let mut all: Vec<Arc<Rollout>> = Vec::new();
        let mut routes: Vec<(Route, String)> = Vec::new();
        let mut traces: Vec<(PathBuf, String)> = Vec::new();
        for (name, raw) in raw {
            self.name(&name.place, &name.value);
            let place = raw.r#match.as_ref().map_or_else(|| name.place.clone(), |table| table.place.clone());
            let trace = raw.trace.as_ref().and_then(|trace| trace.path.as_ref()).map(|at| at.place.clone());
            if let Some(route) = self.route(raw.r#match.as_ref()) {
                if let Some((_, other)) = routes.iter().find(|(known, _)| *known == route) {
                    let what = format!("host \"{}\", path_prefix \"{}\"", show_host(&route.host), route.path_prefix);
                    let reason = format!("is the match of rollouts.{other} too ({what})");
                    let path = Place { path: super::fault::join(&name.place.path, "match"), ..place };
                    self.sink.fault(&path, reason, "give each rollout a host or a path of its own");
                }
                routes.push((route.clone(), name.value.clone()));
                let rollout = self.rollout(&name, raw, route, limits, bound, tokens);
                whole &= rollout.is_some();
                if let (Some(rollout), Some(place)) = (&rollout, trace)
                    && let Some(written) = &rollout.trace
                {
                    if let Some((_, other)) = traces.iter().find(|(path, _)| *path == written.path) {
                        self.sink.fault(
                            &place,
                            format!("is the trace of rollouts.{other} too"),
                            "write each to a file of its own",
                        );
                    }
                    traces.push((written.path.clone(), name.value.clone()));
                }
                all.extend(rollout.map(Arc::new));
            } else {
                whole = false;
            }
        }
        whole.then_some(all)
    }

    fn rollout(
        &mut self,
        name: &At<String>,
        raw: raw::Rollout,
        route: Route,
        limits: &Limits,
        bound: &[SocketAddr],
        tokens: &[Token],
    ) -> Option<Rollout> {
        let protocols = [
            ("auto", Protocol::Auto),
            ("http", Protocol::Http),
            ("openai", Protocol::OpenAi),
            ("anthropic", Protocol::Anthropic),
            ("mcp", Protocol::Mcp),
        ];
        let fallbacks = [
            ("none", Fallback::None),
            ("connect", Fallback::Connect),
            ("before_first_byte", Fallback::BeforeFirstByte),
        ];
        self.unheeded(&raw);
        for later in [&raw.sessions, &raw.shadow] {
            self.later(later.as_ref());
        }
        let prices = raw.prices.and_then(|own| self.prices(own));
        let (stable_at, canary_at) = (version_place(raw.stable.as_ref()), version_place(raw.canary.as_ref()));
        let stable = match raw.stable {
            Some(stable) => self.version(stable, bound, prices),
            None => {
                self.sink.missing(&raw.place, "stable", "write [rollouts.NAME.stable] with version and endpoints");
                None
            }
        };
        let has_canary = raw.canary.is_some();
        let canary = raw.canary.and_then(|canary| self.version(canary, bound, prices));
        if let (Some(stable), Some(canary), Some(at), Some(_)) = (&stable, &canary, &canary_at, &stable_at) {
            self.two_versions(stable, canary, at);
        }
        let baseline = self.baseline(raw.baseline.unwrap_or_default(), bound);
        let cohorts = self.cohorts(raw.cohorts.unwrap_or_default());
        let unit = self.units(&raw.place, raw.unit);
        let jwt = self.jwt(&raw.place, raw.jwt, &unit, &cohorts);
        let exposure = self.exposure(raw.exposure.unwrap_or_default());
        if exposure.max_cost_nano.is_some() && prices.is_none() && canary.as_ref().is_some_and(|c| c.prices.is_none()) {
            let at = raw.place.child("exposure").child("max_cost");
            self.sink.fault(
                &at,
                "can never be reached: nothing has a price",
                "write prices for the rollout or its canary",
            );
        }
        let trace = raw.trace.and_then(|trace| self.trace(trace));
        let weight = self.plain_weight(raw.weight.as_ref(), raw.plan.as_ref(), has_canary);
        let risk = self.risk(raw.register.as_ref());
        let register_at = raw.register.as_ref().map(|register| register.place.clone()).unwrap_or_default();
        // The risk class picks the preset where neither a plan nor a plain weight is written.
        let by_risk = risk
            .filter(|_| raw.weight.is_none())
            .map(|_| raw::Plan { place: register_at.clone(), ..Default::default() });
        let plan = raw.plan.or(by_risk).and_then(|plan| self.plan(plan, risk, &cohorts, tokens));
        self.preset_of_risk(&register_at, risk, plan.as_ref());
        let body = raw.limits.unwrap_or_default();
        let body_bytes = self.size(body.body_bytes.as_ref(), 0, 1 << 50, limits.body_bytes);
        let queries = self.queries(raw.queries.unwrap_or_default());
        let policy = self.policy(raw.evaluator.as_ref(), raw.gates, &queries, !baseline.endpoints.is_empty());
        let evaluator = self.evaluator(raw.evaluator.unwrap_or_default());
        // A gate that the file writes on a score needs feedback; the default gates only heed it where it comes.
        let scored = policy.rules.iter().any(|rule| rule.required && rule.metric.is_score());
        let wanted = raw.feedback.as_ref().map(|at| at.value);
        let feedback = Feedback {
            references: wanted.unwrap_or(scored),
            remembers: wanted.unwrap_or(true) && limits.feedback_ids > 0,
        };
        let confirm = self.confirms(raw.confirm.unwrap_or_default());
        let register = self.register(raw.register, risk, canary.as_ref(), &policy);
        Some(Rollout {
            name: RolloutName::new(name.value.as_str()),
            route,
            protocol: self.choice(raw.protocol.as_ref(), &protocols, Protocol::Auto),
            unit,
            jwt,
            salt: raw.salt.map(|at| at.value.0),
            tag_responses: raw.tag_responses.is_none_or(|at| at.value),
            fallback: self.choice(raw.fallback.as_ref(), &fallbacks, Fallback::Connect),
            feedback,
            exposure,
            safety: self.safety(raw.safety.unwrap_or_default()),
            samples: raw.samples.map(|samples| self.samples(samples)),
            trace,
            body_bytes,
            cohorts: cohorts.into(),
            stable: stable?,
            canary,
            baseline,
            weight: if plan.is_some() { None } else { Some(weight) },
            plan: plan.map(Arc::new),
            policy: Arc::new(policy),
            evaluator,
            queries,
            register: register.map(Arc::new),
            confirm,
            contact: raw.contact.map(|at| at.value.0),
        })
    }

    fn route(&mut self, raw: Option<&raw::Match>) -> Option<Route> {
        let any = Route { host: HostRule::Any, path_prefix: "/".to_owned() };
        let Some(raw) = raw else { return Some(any) };
        let host = match &raw.host {
            None => Some(HostRule::Any),
            Some(at) if at.value.0 == "*" => Some(HostRule::Any),
            Some(at) => match at.value.0.strip_prefix("*.") {
                Some(rest) => {
                    let name = At { value: Text(rest.to_owned()), place: at.place.clone() };
                    self.host(&name).map(|name| HostRule::Suffix(format!(".{}", without_dot(&name))))
                }
                None => self.host(at).map(|name| HostRule::Exact(without_dot(&name).to_owned())),
            },
        };
        let prefix = match &raw.path_prefix {
            None => Some("/".to_owned()),
            Some(at) => self.path(at).map(|path| match path.trim_end_matches('/') {
                "" => "/".to_owned(),
                trimmed => trimmed.to_owned(),
            }),
        };
        Some(Route { host: host?, path_prefix: prefix? })
    }

    fn two_versions(&mut self, stable: &Version, canary: &Version, at: &Place) {
        if stable.name == canary.name {
            self.sink.fault(
                at,
                "is the version of stable too",
                "give the canary a name of its own: everything counted is counted by it",
            );
            return;
        }
        let rewrites =
            |v: &Version| (v.rewrite.clone(), v.add_prefix.clone(), v.strip_prefix.clone(), v.headers_set.clone());
        if stable.endpoints == canary.endpoints && rewrites(stable) == rewrites(canary) {
            self.sink.warn(
                at,
                "has the endpoints of stable and rewrites nothing: both arms are the same",
                "name the canary's own endpoints, a model, or a system prompt",
            );
        }
    }

    fn baseline(&mut self, raw: raw::Baseline, bound: &[SocketAddr]) -> Baseline {
        let enabled = raw.enabled.as_ref().is_none_or(|at| at.value);
        let endpoints = raw.endpoints.map(|list| self.endpoints(&list, bound)).unwrap_or_default();
        if !enabled && !endpoints.is_empty() {
            self.sink.fault(&raw.place.child("endpoints"), "are written, but enabled = false", "take one of them out");
        }
        Baseline { enabled, endpoints }
    }

    fn units(&mut self, rollout: &Place, raw: Option<Many<At<Text>>>) -> Vec<UnitSource> {
        let header = UnitSource::Header(http::HeaderName::from_static("x-user-id"));
        let Some(Many(list)) = raw else {
            let why = "is missing: the unit is taken from the header x-user-id, and who has none gets stable";
            self.sink.warn(
                &rollout.child("unit"),
                why,
                "write unit = [\"header:x-user-id\"], or where your users' ids are",
            );
            return vec![header];
        };
        if list.is_empty() {
            self.sink.fault(
                &rollout.child("unit"),
                "is empty",
                "write where a unit is found, as [\"header:x-user-id\"]",
            );
        }
        list.iter().filter_map(|at| self.unit(at)).collect()
    }

    fn unit(&mut self, at: &At<Text>) -> Option<UnitSource> {
        let form = "write \"header:NAME\", \"cookie:NAME\", \"jwt:CLAIM\", \"body:/POINTER\", \"query:NAME\" or \"ip\"";
        let text = at.value.0.as_str();
        let (kind, what) = text.split_once(':').unwrap_or((text, ""));
        match (kind, what) {
            ("ip", "") => Some(UnitSource::Ip),
            ("ai", "") => {
                let reason = format!("is not yet available in serin {}", env!("CARGO_PKG_VERSION"));
                self.sink.fault(&at.place, reason, form);
                None
            }
            ("header" | "cookie" | "jwt" | "body" | "query", "") => {
                self.sink.fault(&at.place, format!("does not say which {kind}"), form);
                None
            }
            ("header", name) => self.header_name(&at.place, name).map(UnitSource::Header),
            ("cookie", name) => Some(UnitSource::Cookie(name.to_owned())),
            ("jwt", claim) => Some(UnitSource::Jwt(claim.to_owned())),
            ("query", name) => Some(UnitSource::Query(name.to_owned())),
            ("body", pointer) if pointer.starts_with('/') => Some(UnitSource::Body(pointer.to_owned())),
            ("body", _) => {
                self.sink.fault(&at.place, "is no JSON pointer", "begin it with \"/\", as \"body:/user\"");
                None
            }
            (kind, _) => {
                let near = nearest(kind, UNIT_KINDS).map(|near| format!("did you mean \"{near}\"?"));
                self.sink.fault(
                    &at.place,
                    "is no place where a unit is found",
                    near.unwrap_or_else(|| form.to_owned()),
                );
                None
            }
        }
    }

    fn jwt(&mut self, rollout: &Place, raw: Option<raw::Jwt>, unit: &[UnitSource], cohorts: &[Cohort]) -> Option<Jwt> {
        let claims = cohorts.iter().flat_map(|cohort| &cohort.when).any(|c| matches!(c.subject, Subject::Claim(_)));
        let wanted = claims || unit.iter().any(|source| matches!(source, UnitSource::Jwt(_)));
        let remedy =
            "write jwt = { key = \"jwks.json\" }, or { unverified = true } where somebody before serin verifies";
        let Some(raw) = raw else {
            if wanted {
                self.sink.missing(rollout, "jwt", format!("claims are used; {remedy}"));
            }
            return None;
        };
        let unverified = raw.unverified.as_ref().filter(|at| at.value);
        match (raw.key, unverified) {
            (Some(_), Some(at)) => {
                self.sink.fault(&at.place, "contradicts the key beside it", "keep one of them");
                None
            }
            (Some(at), None) => self.file(&at, files::jwt_keys).map(|keys| Jwt::Verified { path: at.value.0, keys }),
            (None, Some(at)) => {
                self.sink.warn(
                    &at.place,
                    "believes every claim that a caller writes",
                    "name a key, unless somebody before serin verifies",
                );
                Some(Jwt::Unverified)
            }
            (None, None) => {
                self.sink.fault(&raw.place, "names no key", remedy);
                None
            }
        }
    }

    fn cohorts(&mut self, raw: Vec<raw::Cohort>) -> Vec<Cohort> {
        let mut names: Vec<String> = Vec::new();
        raw.into_iter().filter_map(|raw| self.cohort(raw, &mut names)).collect()
    }

    fn cohort(&mut self, raw: raw::Cohort, names: &mut Vec<String>) -> Option<Cohort> {
        let name = match &raw.name {
            None => {
                self.sink.missing(&raw.place, "name", "plans and records name it");
                None
            }
            Some(at) if names.contains(&at.value.0) => {
                self.sink.fault(&at.place, "names another cohort too", "give each a name of its own");
                None
            }
            Some(at) => self.name(&at.place, &at.value.0).then(|| at.value.0.clone()),
        };
        names.extend(name.clone());
        let weight = raw.weight.as_ref().and_then(|at| self.weight(at));
        let to = match (&raw.to, &raw.weight) {
            (Some(at), Some(_)) => {
                self.sink.fault(&at.place, "stands beside a weight", "write to, or weight, not both");
                None
            }
            (None, None) => {
                self.sink.missing(&raw.place, "to", "write to = \"canary\", to = \"stable\" or weight = 20.0");
                None
            }
            (Some(at), None) => {
                let words = [("canary", CohortTo::Canary), ("stable", CohortTo::Stable)];
                Some(self.choice(Some(at), &words, CohortTo::Stable))
            }
            (None, Some(_)) => weight.map(CohortTo::Weight),
        };
        let when: Vec<Condition> = match raw.when {
            None => {
                self.sink.missing(
                    &raw.place,
                    "when",
                    "write who belongs to it, as { header = \"x-org\", is = [\"acme\"] }",
                );
                Vec::new()
            }
            Some(Many(tables)) => tables.into_iter().flat_map(|table| self.when(table)).collect(),
        };
        (!when.is_empty()).then_some(Cohort { name: name?, when, to: to? })
    }

    fn when(&mut self, raw: raw::When) -> Vec<Condition> {
        let before = self.sink.count();
        let written = [raw.is.is_some(), raw.prefix.is_some(), raw.regex.is_some()];
        if written.iter().filter(|there| **there).count() > 1 {
            self.sink.fault(
                &raw.place,
                "has more than one of is, prefix and regex",
                "write when = [{ … }, { … }]: all must hold",
            );
        }
        let texts = |many: Many<At<Text>>| many.0.into_iter().map(|at| at.value.0).collect::<Vec<_>>();
        let test = match (raw.is, raw.prefix, raw.regex) {
            (Some(is), ..) => Some(Test::Is(texts(is))),
            (None, Some(prefix), _) => Some(Test::Prefix(texts(prefix))),
            (None, None, Some(at)) => match Pattern::new(&at.value.0) {
                Ok(pattern) => Some(Test::Regex(pattern)),
                Err(_) => {
                    self.sink.fault(
                        &at.place,
                        "is no regular expression, or too large a one",
                        "the syntax is that of the Rust crate regex: no look-around, no back-references",
                    );
                    None
                }
            },
            (None, None, None) => None,
        };
        if let Some(Test::Is(list) | Test::Prefix(list)) = &test
            && list.is_empty()
        {
            self.sink.fault(&raw.place, "tests against an empty list", "write at least one value");
        }
        let mut all = Vec::new();
        let mut add = |subject: Option<Subject>| {
            all.extend(subject.map(|subject| Condition { subject, test: test.clone().unwrap_or(Test::Present) }));
        };
        add(raw.header.and_then(|at| self.header_name(&at.place, &at.value.0)).map(Subject::Header));
        add(raw.cookie.and_then(|at| self.filled(&at)).map(Subject::Cookie));
        add(raw.claim.and_then(|at| self.filled(&at)).map(Subject::Claim));
        add(raw.query.and_then(|at| self.filled(&at)).map(Subject::Query));
        match raw.path {
            None => {}
            Some(At { value: TextOrTrue::True, place }) => match &test {
                None => self.sink.fault(
                    &place,
                    "says nothing about the path",
                    "write path = \"/exactly/this\", or add is, prefix or regex",
                ),
                Some(_) => add(Some(Subject::Path)),
            },
            Some(At { value: TextOrTrue::Text(path), .. }) => {
                all.push(Condition { subject: Subject::Path, test: Test::Is(vec![path]) });
            }
        }
        let tested = !all.is_empty();
        if test.is_some() && !tested && self.sink.count() == before {
            self.sink.fault(
                &raw.place,
                "has a test and nothing to test",
                "add header, cookie, claim, query or path = true",
            );
        }
        if let Some(at) = raw.list {
            all.extend(self.list(&at));
        }
        if let Some(Many(nets)) = raw.ip {
            let nets = nets.iter().filter_map(|at| self.network(at)).collect();
            all.push(Condition { subject: Subject::Ip, test: Test::Within(nets) });
        }
        if all.is_empty() && self.sink.count() == before {
            self.sink.fault(&raw.place, "is empty: everybody would belong to it", "write who belongs to it");
        }
        all
    }

    fn list(&mut self, at: &At<File>) -> Option<Condition> {
        let units = self.file(at, files::units)?;
        if units.is_empty() {
            self.sink.warn(&at.place, "names a file without units", "write one unit a line");
        }
        let list = UnitList { path: at.value.0.clone(), units };
        Some(Condition { subject: Subject::Unit, test: Test::Listed(list) })
    }

    fn exposure(&mut self, raw: raw::Exposure) -> Exposure {
        let bound = |at: Option<At<u64>>| at.map(|at| at.value).filter(|most| *most > 0);
        let cost = raw.max_cost.and_then(|at| {
            let dollars = match &at.value {
                Scalar::Number(number) => Some(*number),
                Scalar::Text(text) => text.trim().trim_start_matches('$').parse().ok(),
            };
            let good = dollars.filter(|dollars: &f64| (0.0..=1e9).contains(dollars));
            if good.is_none() {
                self.sink.fault(&at.place, "is no amount of US dollars", "write \"500\"");
            }
            good
        });
        Exposure {
            max_users: bound(raw.max_users),
            max_requests: bound(raw.max_requests),
            max_tokens: bound(raw.max_tokens),
            max_cost_nano: cost.filter(|dollars| *dollars > 0.0).map(|dollars| (dollars * 1e9).round().max(1.0) as u64),
            on: self.choice(raw.on.as_ref(), &[("hold", OnSpent::Hold), ("stop", OnSpent::Stop)], OnSpent::Hold),
        }
    }

    fn samples(&mut self, raw: raw::Samples) -> Samples {
        let share = match &raw.share {
            None => {
                self.sink.missing(&raw.place, "share", "write which share of exchanges, as \"1%\"");
                None
            }
            Some(at) => {
                let percent = at.value.0.trim().strip_suffix('%').and_then(|text| text.trim().parse::<f64>().ok());
                let good = percent.filter(|percent| (0.0..=100.0).contains(percent));
                if good.is_none() {
                    self.sink.fault(&at.place, "is no share of exchanges", "write \"1%\"");
                }
                good
            }
        };
        if let Some(at) = raw.push.as_ref().filter(|at| {
            let text = at.value.0.expose();
            !text.starts_with("http://") && !text.starts_with("https://")
        }) {
            self.sink.fault(&at.place, "is no address of a server", "begin with http:// or https://");
        }
        let words = [("none", SampleText::None), ("redacted", SampleText::Redacted), ("full", SampleText::Full)];
        Samples {
            share: share.unwrap_or(0.0) / 100.0,
            keep: usize::try_from(self.count(raw.keep.as_ref(), 1, 100_000, 1_000)).unwrap_or(1_000),
            bytes: usize::try_from(self.size(raw.bytes.as_ref(), 1, 1 << 20, 16 << 10)).unwrap_or(16 << 10),
            text: self.choice(raw.text.as_ref(), &words, SampleText::default()),
            push: raw.push.map(|at| at.value.0),
        }
    }

    fn safety(&mut self, raw: raw::Safety) -> Safety {
        let header = raw.header.and_then(|at| self.header_name(&at.place, &at.value.0));
        let content_filter = raw.content_filter.is_none_or(|at| at.value);
        let rules = raw.rules.map(|Many(rules)| rules).unwrap_or_default();
        let place = rules.first().map(|at| at.place.clone());
        for at in &rules {
            if let Err(why) = SafetyRules::new(std::slice::from_ref(&at.value.0)) {
                let why = why.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
                let remedy = "the syntax is that of the Rust crate regex: no look-around, no back-references";
                self.sink.fault(&at.place, format!("is no regular expression, or too large a one: {why}"), remedy);
                return Safety { header, content_filter, rules: None };
            }
        }
        let texts: Vec<String> = rules.into_iter().map(|at| at.value.0).collect();
        let rules = match (place, SafetyRules::new(&texts)) {
            (None, _) => None,
            (Some(_), Ok(rules)) => Some(rules),
            (Some(place), Err(why)) => {
                self.sink.fault(
                    &place,
                    format!("and the rules beside it are too many: {why}"),
                    "write fewer or smaller rules",
                );
                None
            }
        };
        Safety { header, content_filter, rules }
    }

    fn trace(&mut self, raw: raw::Trace) -> Option<Trace> {
        let max_bytes = self.size(raw.max_bytes.as_ref(), 1, u64::MAX, 1 << 30);
        match raw.path {
            Some(at) => Some(Trace { path: at.value.0, max_bytes }),
            None => {
                self.sink.missing(&raw.place, "path", "name the file");
                None
            }
        }
    }

    /// A weight in percent.
    pub(crate) fn weight(&mut self, at: &At<f64>) -> Option<Weight> {
        match Weight::from_percent(at.value) {
            Ok(weight) => Some(weight),
            Err(error) => {
                let (reason, remedy) = match error {
                    WeightError::Range => ("is not between 0 and 100 %", "write a percentage"),
                    WeightError::Step => ("is finer than a bucket", "weights have steps of 0.001 %"),
                };
                self.sink.fault_of(&at.place, format!("{} %", at.value), reason, remedy);
                None
            }
        }
    }
}

fn version_place(raw: Option<&raw::Version>) -> Option<Place> {
    raw.and_then(|version| version.version.as_ref()).map(|at| at.place.clone())
}

/// A name with and without its last dot is the same; requests are looked up without.
fn without_dot(name: &str) -> &str {
    name.strip_suffix('.').unwrap_or(name)
}

fn show_host(host: &HostRule) -> String {
    match host {
        HostRule::Any => "*".to_owned(),
        HostRule::Exact(name) => name.clone(),
        HostRule::Suffix(suffix) => format!("*{suffix}"),
    }
}

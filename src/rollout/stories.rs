//! The machine by example: the phase table of the interface, and the rules under it, one story each.

use std::sync::Arc;
use std::time::Duration;

use super::testing::{Trial, percent, terms};
use super::*;
use crate::judge::{Lack, Missing, Verdict};
use crate::names::VersionName;
use crate::split::weight::Weight;

const HOUR: Duration = Duration::from_secs(3_600);

fn actor(name: &str) -> Actor {
    let roles: &[Role] = match name {
        "alice" => &[Role::Operator, Role::Approver],
        "olga" => &[Role::Owner],
        _ => &[Role::Approver],
    };
    Actor::new(name, roles)
}

impl Trial {
    fn of(plan: Plan) -> Self {
        Self::under(terms(Some(plan)))
    }

    fn try_to(&mut self, name: &str, verb: Verb) -> Result<Vec<Effect>, Refusal> {
        self.take(Event::Command { verb, actor: actor(name), reason: "why".to_owned() })
    }

    fn does(&mut self, name: &str, verb: Verb) -> &mut Self {
        self.try_to(name, verb).unwrap();
        self
    }

    fn advance(&mut self) -> &mut Self {
        self.take(Event::Judged(Verdict::Advance { reason: "proven".to_owned() })).unwrap();
        self
    }

    fn hold(&mut self) -> &mut Self {
        let missing = vec![Missing { rule: None, lack: Lack::Requests { have: 1, need: 5 } }];
        self.take(Event::Judged(Verdict::Hold { missing, reason: "1 of 5".to_owned() })).unwrap();
        self
    }

    fn worse(&mut self) -> &mut Self {
        self.take(Event::Judged(Verdict::Rollback { rule: "errors".to_owned(), reason: "9 of 10".to_owned() }))
            .unwrap();
        self
    }

    fn ticks(&mut self, time: Duration) -> &mut Self {
        self.passes(time);
        self.take(Event::Tick).unwrap();
        self
    }

    #[track_caller]
    fn is(&mut self, phase: Phase, weight: f64) -> &mut Self {
        assert_eq!((self.state.phase, self.state.weight), (phase, percent(weight)), "{:?}", self.state);
        self
    }

    fn last_record(&self) -> &Record {
        let record = self.done.iter().rev().find_map(|e| if let Effect::Record(r) = e { Some(r) } else { None });
        record.unwrap()
    }
}

fn short(approval: Approval) -> Plan {
    let stage = |p| Stage { weight: percent(p), residence: HOUR, samples: 5, approval, cohorts: Vec::new() };
    Plan { stages: vec![stage(1.0), stage(5.0), stage(10.0), Stage::last()], soak: HOUR, ..Plan::default() }
}

/// A story that stands in this phase; for all but idle and plain ones, in the second stage.
fn in_phase(phase: Phase) -> Trial {
    let mut story = Trial::of(short(Approval::One));
    let second = |story: &mut Trial| {
        story.does("alice", Verb::Start).passes(HOUR).advance().does("bob", Verb::Approve).is(Phase::Running, 5.0);
    };
    let soak = |story: &mut Trial| {
        story.does("alice", Verb::Start).does("olga", Verb::Promote { full: true });
        story.does("bob", Verb::Approve).is(Phase::Soaking, 99.0);
    };
    match phase {
        Phase::Idle => {}
        Phase::Running => second(&mut story),
        Phase::Awaiting => {
            second(&mut story);
            story.passes(HOUR).advance();
        }
        Phase::Paused => {
            second(&mut story);
            story.does("alice", Verb::Pause);
        }
        Phase::Soaking => soak(&mut story),
        Phase::Completed => {
            soak(&mut story);
            story.passes(HOUR).advance();
        }
        Phase::RolledBack => {
            second(&mut story);
            story.worse();
        }
    }
    assert_eq!(story.state.phase, phase);
    story
}

#[test]
fn every_phase_allows_the_verbs_of_the_table_and_no_others() {
    // The table of the interface, copied word for word: phase, then the verbs that work.
    let table = [
        (Phase::Idle, "start, drill"),
        (Phase::Running, "promote, pause, set weight, step-back, extend, abort, drill"),
        (Phase::Awaiting, "approve, pause, set weight, step-back, extend, abort, drill"),
        (Phase::Paused, "resume, set weight, step-back, abort, drill"),
        (Phase::Soaking, "pause, extend, promote, abort, drill"),
        (Phase::Completed, "abort, drill"),
        (Phase::RolledBack, "clear"),
    ];
    for (phase, words) in table {
        let verbs: Vec<&str> = words.split(", ").collect();
        let story = in_phase(phase);
        assert_eq!(allowed(&story.state, &story.terms), verbs, "{phase:?}");
        for name in Verb::NAMES.into_iter().filter(|n| *n != "gates") {
            let mut story = in_phase(phase);
            let args = VerbArgs { full: false, by: Some(HOUR), weight: Some(percent(1.0)) };
            let result = story.try_to("olga", Verb::parse(name, args).unwrap());
            if verbs.contains(&name) {
                assert!(!result.unwrap().is_empty(), "{phase:?} {name}");
            } else if name == "abort" {
                assert_eq!(result.unwrap(), vec![], "{phase:?}: nothing runs, nothing changes");
                story.is(phase, 0.0);
            } else {
                let refusal = result.unwrap_err();
                assert_eq!((refusal.kind, &refusal.allowed), (RefusalKind::Conflict, &verbs), "{phase:?} {name}");
            }
        }
    }
}

#[test]
fn a_plan_without_approvals_walks_up_by_proof_and_residence_alone() {
    let mut story = Trial::of(short(Approval::None));
    story.does("alice", Verb::Start).is(Phase::Running, 1.0);
    story.advance().is(Phase::Running, 1.0);
    assert_eq!(waits_for(&story.state, &story.terms, story.now.wall), Some("residence"));
    story.ticks(HOUR).is(Phase::Running, 1.0); // the word is an hour old: not fresh
    assert_eq!(waits_for(&story.state, &story.terms, story.now.wall), Some("gates"));
    story.hold();
    assert_eq!(waits_for(&story.state, &story.terms, story.now.wall), Some("samples"));
    story.advance().is(Phase::Running, 5.0);
    story.passes(HOUR).advance().is(Phase::Running, 10.0);
    story.passes(HOUR).advance().is(Phase::Soaking, 99.0);
    story.passes(HOUR).hold().is(Phase::Soaking, 99.0);
    story.advance().is(Phase::Completed, 100.0);
    assert!(story.last_record().proven && story.last_record().decision == Decision::Complete);
}

#[test]
fn a_rollback_latches_first_then_records_then_tells() {
    for phase in [Phase::Running, Phase::Awaiting, Phase::Paused, Phase::Soaking, Phase::Completed] {
        let mut story = in_phase(phase);
        story.done.clear();
        story.worse().is(Phase::RolledBack, 0.0);
        assert!(matches!(story.done.as_slice(), [Effect::Latch, Effect::Record(_), Effect::Notify(_)]), "{phase:?}");
        assert_eq!(story.last_record().reason, "errors: 9 of 10");
        story.worse().advance().ticks(HOUR).is(Phase::RolledBack, 0.0);
    }
}

#[test]
fn a_rise_is_recorded_first_then_published_then_told() {
    let mut story = Trial::of(short(Approval::None));
    story.does("alice", Verb::Start);
    let order = |effects: &[Effect]| {
        matches!(effects, [Effect::Record(_), Effect::Weight { .. }, Effect::EnterStage { .. }, Effect::Notify(_)])
    };
    assert!(order(&story.done), "{:?}", story.done);
    story.done.clear();
    story.passes(HOUR).advance();
    assert!(order(&story.done), "{:?}", story.done);
}

#[test]
fn two_signatures_are_two_people_and_neither_is_the_starter() {
    let mut story = Trial::of(short(Approval::Two));
    story.does("alice", Verb::Start).passes(HOUR).advance().is(Phase::Awaiting, 1.0);
    assert_eq!(story.try_to("alice", Verb::Approve).unwrap_err().kind, RefusalKind::Forbidden);
    story.does("bob", Verb::Approve).is(Phase::Awaiting, 1.0);
    assert_eq!(story.try_to("bob", Verb::Approve).unwrap_err().kind, RefusalKind::Conflict);
    story.does("carol", Verb::Approve).is(Phase::Running, 5.0);
    assert_eq!(story.last_record().approvals, ["bob", "carol"]);
    // Of one signature, the starter's own will do.
    let mut story = Trial::of(short(Approval::One));
    story.does("alice", Verb::Start).passes(HOUR).advance().does("alice", Verb::Approve).is(Phase::Running, 5.0);
}

#[test]
fn a_signature_is_void_after_a_pause_an_extension_or_a_gate_that_no_longer_passes() {
    let signed = || {
        let mut story = Trial::of(short(Approval::Two));
        story.does("alice", Verb::Start).passes(HOUR).advance().does("bob", Verb::Approve).is(Phase::Awaiting, 1.0);
        assert_eq!(story.state.approvals, ["bob"]);
        story
    };
    let mut paused = signed();
    paused.does("alice", Verb::Pause).does("alice", Verb::Resume).is(Phase::Awaiting, 1.0);
    assert!(paused.state.approvals.is_empty());
    paused.advance().does("carol", Verb::Approve).is(Phase::Awaiting, 1.0);

    let mut extended = signed();
    extended.does("alice", Verb::Extend { by: HOUR }).is(Phase::Running, 1.0);
    assert!(extended.state.approvals.is_empty());
    extended.advance().is(Phase::Running, 1.0).passes(HOUR).advance().is(Phase::Awaiting, 1.0);

    let mut held = signed();
    held.hold().is(Phase::Running, 1.0);
    assert!(held.state.approvals.is_empty());
    // A person is asked again only when the proof has held for a minute.
    held.advance().is(Phase::Running, 1.0);
    for _ in 0..12 {
        held.passes(Duration::from_secs(5)).advance();
    }
    held.is(Phase::Awaiting, 1.0);
}

#[test]
fn a_stale_word_of_the_judge_moves_nothing_even_when_all_have_signed() {
    let mut story = Trial::of(short(Approval::One));
    story.does("alice", Verb::Start).passes(HOUR).advance().is(Phase::Awaiting, 1.0);
    story.passes(Duration::from_secs(11)).does("bob", Verb::Approve).is(Phase::Awaiting, 1.0);
    story.advance().is(Phase::Running, 5.0);
}

#[test]
fn promote_skips_gates_but_never_a_signature() {
    let mut story = Trial::of(short(Approval::None));
    story.does("alice", Verb::Start).does("alice", Verb::Promote { full: false }).is(Phase::Running, 5.0);
    assert!(!story.last_record().proven);
    assert_eq!(story.try_to("alice", Verb::Promote { full: true }).unwrap_err().kind, RefusalKind::Forbidden);
    story.does("olga", Verb::Promote { full: true }).is(Phase::Soaking, 99.0);
    story.does("alice", Verb::Promote { full: false }).is(Phase::Completed, 100.0);
    assert!(!story.last_record().proven);

    let mut plan = short(Approval::None);
    plan.stages[1].approval = Approval::Two;
    let mut story = Trial::of(plan);
    story.does("alice", Verb::Start).does("olga", Verb::Promote { full: true }).is(Phase::Awaiting, 1.0);
    story.hold().is(Phase::Awaiting, 1.0).does("bob", Verb::Approve).is(Phase::Awaiting, 1.0);
    story.does("carol", Verb::Approve).is(Phase::Soaking, 99.0);
    assert!(!story.last_record().proven && story.last_record().decision == Decision::Promote);
}

#[test]
fn a_weight_by_hand_pauses_and_only_an_owner_goes_above_what_was_entered() {
    let mut story = in_phase(Phase::Running);
    story.does("alice", Verb::SetWeight(percent(2.0))).is(Phase::Paused, 2.0);
    assert!(!story.last_record().proven && story.last_record().decision == Decision::SetWeight);
    let refusal = story.try_to("alice", Verb::SetWeight(percent(5.001))).unwrap_err();
    assert_eq!(refusal.kind, RefusalKind::Forbidden);
    story.does("alice", Verb::SetWeight(percent(5.0))).is(Phase::Paused, 5.0);
    story.does("olga", Verb::SetWeight(percent(30.0))).is(Phase::Paused, 30.0);
    story.does("alice", Verb::Resume).is(Phase::Running, 5.0);
    assert_eq!(story.state.stage, Some(1));
    story.does("alice", Verb::SetWeight(percent(4.9))).does("alice", Verb::Resume).is(Phase::Running, 1.0);
    assert_eq!(story.state.resided, Duration::ZERO);
}

#[test]
fn step_back_goes_one_stage_down_and_from_the_first_to_zero_unlatched() {
    let mut story = in_phase(Phase::Awaiting);
    story.done.clear();
    story.does("alice", Verb::StepBack).is(Phase::Running, 1.0);
    assert!(
        matches!(story.done[0], Effect::Weight { .. }) && matches!(story.done[1], Effect::EnterStage { index: 0, .. })
    );
    story.passes(HOUR).does("alice", Verb::StepBack).is(Phase::Paused, 0.0);
    assert_eq!(story.state.latch, None);
    story.does("alice", Verb::Resume).is(Phase::Running, 1.0);
    // From a weight by hand it never rises.
    let mut story = in_phase(Phase::Running);
    story.does("alice", Verb::SetWeight(percent(0.5))).does("alice", Verb::StepBack).is(Phase::Paused, 0.0);
}

#[test]
fn a_pause_is_no_residence_and_survives_a_restart() {
    let mut story = Trial::of(short(Approval::None));
    story.does("alice", Verb::Start).ticks(HOUR / 2).does("alice", Verb::Pause).ticks(HOUR);
    let text = serde_json::to_string(&story.last_record().state).unwrap();
    story.passes(HOUR * 100);
    story.state = serde_json::from_str::<State>(&text).unwrap().resume(story.now.mono);
    story.is(Phase::Paused, 1.0).does("alice", Verb::Resume);
    assert_eq!(story.state.residence_left(), HOUR / 2);
    story.advance().is(Phase::Running, 1.0).passes(HOUR / 2).advance().is(Phase::Running, 5.0);
}

#[test]
fn a_checkpoint_gives_back_the_time_since_the_last_record() {
    let mut story = Trial::of(short(Approval::None));
    story.does("alice", Verb::Start).ticks(HOUR / 2);
    let mut back = story.last_record().state.clone();
    assert_eq!(back.resided, Duration::ZERO);
    assert!(back.catch_up(&story.state));
    assert_eq!(back.resided, HOUR / 2);
    story.does("alice", Verb::StepBack);
    assert!(!back.catch_up(&story.state));
}

#[test]
fn a_deadline_pauses_and_tells_and_a_resumed_stage_has_a_new_one() {
    let mut story = Trial::of(short(Approval::One));
    story.does("alice", Verb::Start).ticks(HOUR * 4 - Duration::from_secs(1)).is(Phase::Running, 1.0);
    story.done.clear();
    story.ticks(Duration::from_secs(1)).is(Phase::Paused, 1.0);
    assert!(matches!(&story.done[..], [Effect::Record(_), Effect::Notify(n)] if n.tidings == Tidings::Deadline));
    story.done.clear();
    story.ticks(HOUR * 4);
    assert!(matches!(&story.done[..], [Effect::Notify(n)] if n.tidings == Tidings::Reminder));
    story.does("alice", Verb::Resume).ticks(HOUR).is(Phase::Running, 1.0);
    story.advance().is(Phase::Awaiting, 1.0).ticks(HOUR * 4).is(Phase::Paused, 1.0);
    let mut soak = in_phase(Phase::Soaking);
    soak.ticks(HOUR * 4).is(Phase::Paused, 99.0).does("alice", Verb::Resume).is(Phase::Soaking, 99.0);
}

#[test]
fn a_stale_heartbeat_freezes_every_rise_and_no_fall() {
    let mut story = in_phase(Phase::Running);
    story.take(Event::HeartbeatLost).unwrap();
    for verb in [Verb::Promote { full: true }, Verb::SetWeight(percent(99.0))] {
        assert_eq!(story.try_to("olga", verb).unwrap_err().kind, RefusalKind::Stale);
    }
    story.passes(HOUR).advance().is(Phase::Running, 5.0);
    story.take(Event::HeartbeatFound).unwrap();
    story.advance().is(Phase::Running, 5.0); // an hour without a judge is no residence
    story.passes(HOUR).advance().is(Phase::Awaiting, 5.0);
    story.take(Event::HeartbeatLost).unwrap();
    story.does("bob", Verb::Approve).is(Phase::Awaiting, 5.0);
    story.does("alice", Verb::StepBack).is(Phase::Running, 1.0).does("alice", Verb::Abort).is(Phase::RolledBack, 0.0);
}

#[test]
fn hours_and_freezes_hold_rises_and_never_falls() {
    let mut plan = short(Approval::None);
    plan.hours = Some("Mon-Fri 09:00-17:00 UTC".parse().unwrap());
    plan.freezes = vec!["2026-11-23".parse().unwrap()];
    plan.deadline_factor = 1_000.0;
    let mut story = Trial::of(plan); // Friday, 10:00
    story.does("alice", Verb::Start).passes(HOUR * 8).advance().is(Phase::Running, 1.0);
    assert_eq!(waits_for(&story.state, &story.terms, story.now.wall), Some("hours"));
    assert_eq!(story.try_to("alice", Verb::Promote { full: false }).unwrap_err().kind, RefusalKind::Conflict);
    story.passes(HOUR * 64).advance().is(Phase::Running, 1.0); // Monday, 10:00, frozen
    story.passes(HOUR * 24).advance().is(Phase::Running, 5.0); // Tuesday
    story.passes(HOUR * 12).does("alice", Verb::StepBack).is(Phase::Running, 1.0);
    story.does("olga", Verb::Promote { full: false }).is(Phase::Running, 5.0);
    story.worse().is(Phase::RolledBack, 0.0);
}

#[test]
fn before_the_plans_time_nothing_starts_or_rises_and_everything_falls() {
    let mut plan = short(Approval::None);
    plan.not_before = Some("2026-11-20T12:00:00Z".parse().unwrap());
    let mut story = Trial::of(plan.clone()); // Friday, 10:00
    let refused = story.try_to("alice", Verb::Start).unwrap_err();
    assert_eq!(refused.kind, RefusalKind::Conflict);
    story.passes(HOUR * 2).does("alice", Verb::Start).is(Phase::Running, 1.0);

    // Begun earlier under a plan that waits now: restarts and reloads do not lift it.
    let mut story = Trial::of(short(Approval::None));
    story.does("alice", Verb::Start);
    story.state.plan = Some(Arc::new(plan));
    story.passes(HOUR).advance().is(Phase::Running, 1.0);
    assert_eq!(waits_for(&story.state, &story.terms, story.now.wall), Some("hours"));
    story.worse().is(Phase::RolledBack, 0.0);
}

#[test]
fn clearing_needs_a_root_cause_and_after_the_third_rollback_an_owner() {
    let mut story = Trial::of(short(Approval::None));
    for round in 1..=3 {
        story.does("alice", Verb::Start).worse();
        assert_eq!(story.state.rollbacks_of(&VersionName::new("b")), round);
        let wordless = Event::Command { verb: Verb::Clear, actor: actor("olga"), reason: " ".to_owned() };
        assert_eq!(story.take(wordless).unwrap_err().kind, RefusalKind::Invalid);
        if round < 3 {
            story.does("bob", Verb::Clear).is(Phase::Idle, 0.0);
        }
    }
    assert_eq!(story.try_to("bob", Verb::Clear).unwrap_err().kind, RefusalKind::Forbidden);
    story.does("olga", Verb::Clear).is(Phase::Idle, 0.0);
}

#[test]
fn a_second_version_is_rejected_queued_or_supersedes() {
    let c = || VersionName::new("c");
    let with = |second_version| {
        let mut story = Trial::of(Plan { second_version, ..short(Approval::None) });
        story.does("alice", Verb::Start).passes(HOUR).advance().is(Phase::Running, 5.0);
        story.terms.canary = Some(c());
        story
    };
    let mut story = with(SecondVersion::Reject);
    assert_eq!(story.take(Event::NewVersion(c())).unwrap_err().kind, RefusalKind::Conflict);

    let mut story = with(SecondVersion::Queue);
    story.take(Event::NewVersion(c())).unwrap();
    story.is(Phase::Running, 5.0).worse();
    story.does("bob", Verb::Clear).is(Phase::Idle, 0.0);
    assert_eq!(story.state.version, Some(c()));
    assert!(story.done.contains(&Effect::Adopt(c())));

    let mut story = with(SecondVersion::Supersede);
    let effects = story.take(Event::NewVersion(c())).unwrap();
    assert!(matches!(
        &effects[..],
        [Effect::Weight { weight: Weight::ZERO, .. }, Effect::Adopt(_), Effect::Record(_), Effect::Notify(_)]
    ));
    story.is(Phase::Idle, 0.0).ticks(Duration::ZERO).is(Phase::Running, 1.0);
    story.worse();
    story.take(Event::NewVersion(VersionName::new("d"))).unwrap();
    story.ticks(HOUR).is(Phase::RolledBack, 0.0);
}

#[test]
fn the_file_removes_or_promotes_the_canary() {
    let mut story = in_phase(Phase::Running);
    story.terms.canary = None;
    assert_eq!(reconcile(&story.state, &story.terms), Some(Event::CanaryRemoved));
    story.take(Event::CanaryRemoved).unwrap();
    story.is(Phase::RolledBack, 0.0);
    assert_eq!(story.state.latch.as_ref().unwrap().actor, "config");
    assert_eq!(reconcile(&story.state, &story.terms), None);

    for phase in Phase::ALL {
        let mut story = in_phase(phase);
        story.terms.stable = VersionName::new("b");
        story.terms.canary = None;
        assert_eq!(reconcile(&story.state, &story.terms), Some(Event::PromotedInConfig));
        let taken = story.take(Event::PromotedInConfig);
        if phase == Phase::Completed {
            assert!(matches!(&taken.unwrap()[..], [Effect::Record(_), Effect::Swap, Effect::Notify(_)]));
            story.is(Phase::Idle, 0.0);
            assert_eq!(story.state.version, None);
            assert_eq!(reconcile(&story.state, &story.terms), None);
        } else {
            assert_eq!(taken.unwrap_err().kind, RefusalKind::Conflict, "{phase:?}");
        }
    }
}

#[test]
fn cohorts_open_with_their_stage_and_close_with_the_rollout() {
    let mut story = Trial::of(Plan { soak: HOUR, ..Plan::preset("cohort_first").unwrap() });
    let open = |story: &Trial| ["internal", "beta", "other"].map(|c| story.state.cohorts().open(c));
    assert_eq!(open(&story), [false; 3]);
    story.does("alice", Verb::Start).is(Phase::Running, 0.0);
    assert_eq!(open(&story), [true, false, true]);
    assert!(story.state.has_canary_traffic());
    story.passes(HOUR * 24).advance().does("bob", Verb::Approve).is(Phase::Running, 0.0);
    assert_eq!(open(&story), [true; 3]);
    story.does("alice", Verb::StepBack).is(Phase::Running, 0.0);
    assert_eq!(open(&story), [true, false, true]);
    story.does("alice", Verb::StepBack).is(Phase::Paused, 0.0);
    assert_eq!(open(&story), [false; 3]);
}

#[test]
fn a_plain_split_starts_with_the_file_runs_by_hand_and_is_guarded() {
    let mut terms = Trial::of(short(Approval::None)).terms;
    (terms.plan, terms.weight) = (None, Some(percent(5.0)));
    let mut story = Trial::under(terms);
    story.is(Phase::Idle, 0.0).ticks(Duration::ZERO).is(Phase::Running, 5.0);
    story.does("alice", Verb::SetWeight(percent(20.0))).is(Phase::Running, 20.0);
    assert!(!story.last_record().proven);
    story.does("alice", Verb::SetWeight(Weight::ZERO)).is(Phase::Idle, 0.0);
    assert_eq!(allowed(&story.state, &story.terms), ["start", "set weight", "drill"]);
    story.ticks(HOUR * 100).is(Phase::Idle, 0.0).does("alice", Verb::SetWeight(percent(1.0))).is(Phase::Running, 1.0);
    story.advance().ticks(HOUR * 100).is(Phase::Running, 1.0);
    story.worse().is(Phase::RolledBack, 0.0).does("bob", Verb::Clear).ticks(HOUR).is(Phase::Idle, 0.0);
}

#[test]
fn new_versions_start_by_themselves_where_the_plan_says_so() {
    let mut story = Trial::of(Plan { start: Start::OnNewVersion, ..short(Approval::None) });
    story.ticks(Duration::ZERO).is(Phase::Running, 1.0);
    assert_eq!(story.state.started_by.as_deref(), Some("config"));
    story.worse().does("bob", Verb::Clear).ticks(HOUR).is(Phase::Idle, 0.0); // the same version is not tried again
}

#[test]
fn a_drill_is_an_effect_only_and_its_result_is_recorded() {
    let mut story = in_phase(Phase::Running);
    let before = story.state.clone();
    assert_eq!(story.try_to("alice", Verb::Drill).unwrap(), vec![Effect::Drill]);
    assert_eq!(story.state, before);
    story.take(Event::Drilled { took: Duration::from_micros(80), failed: None }).unwrap();
    assert!(story.last_record().reason.contains("0.080 ms"));
}

#[test]
fn a_drill_that_failed_or_is_overdue_holds_every_rise_says_so_and_holds_no_fall() {
    let day = HOUR * 24;
    let mut story = Trial::of(short(Approval::None));
    story.terms.drill_every = Some(day * 30);
    assert_eq!(story.take(Event::Tick).unwrap(), [Effect::Drill], "never made: due at once");
    let refusal = story.try_to("alice", Verb::Start).unwrap_err();
    assert!(refusal.kind == RefusalKind::Conflict && refusal.why.contains("never been rehearsed"), "{refusal:?}");
    let drilled = |failed: Option<&str>| Event::Drilled {
        took: Duration::from_micros(700),
        failed: failed.map(ToOwned::to_owned),
    };
    story.take(drilled(None)).unwrap();
    story.does("alice", Verb::Start).is(Phase::Running, 1.0);
    story.take(drilled(Some("worker 1 stood still"))).unwrap();
    story.passes(HOUR);
    assert_eq!(story.take(Event::Tick).unwrap(), [Effect::Drill], "a failed one is tried again by itself");
    story.advance().is(Phase::Running, 1.0);
    assert_eq!(waits_for(&story.state, &story.terms, story.now.wall), Some("drill"));
    let refusal = story.try_to("alice", Verb::Promote { full: false }).unwrap_err();
    assert!(refusal.why.contains("worker 1 stood still"), "{refusal:?}");
    story.take(drilled(None)).unwrap();
    story.advance().is(Phase::Running, 5.0);
    // Made a little ahead of time; when nobody carries it out, it is overdue and holds.
    story.now.wall.0 += 29 * 86_400_000;
    assert_eq!(story.take(Event::Tick).unwrap(), []);
    story.now.wall.0 += 86_400_000 - 3_600_000;
    assert_eq!(story.take(Event::Tick).unwrap(), [Effect::Drill]);
    story.now.wall.0 += 3_600_001;
    story.passes(HOUR).advance().is(Phase::Running, 5.0);
    assert!(story.try_to("alice", Verb::Promote { full: false }).unwrap_err().why.contains("overdue"));
    story.worse().is(Phase::RolledBack, 0.0);
    assert_eq!(story.take(Event::Tick).unwrap(), [], "none while the real thing stands");
}

#[test]
fn the_gates_of_the_start_stay_in_force_until_an_owner_takes_others_with_a_reason() {
    let policy = |alpha: f64| {
        let text = format!(
            "[evaluator]\nalpha = {alpha}\n[[rule]]\nname = \"errors\"\nmetric = \"error\"\nstat = \"rate\"\npromote = 0.05\nrollback = 0.2\n"
        );
        Some(Arc::new(crate::judge::Policy::from_toml(&text).unwrap()))
    };
    let mut story = Trial::of(short(Approval::None));
    (story.terms.policy, story.terms.gates) = (policy(0.01), "first".to_owned());
    story.does("alice", Verb::Start);
    (story.terms.policy, story.terms.gates) = (policy(0.02), "second".to_owned());
    story.passes(HOUR).advance().is(Phase::Running, 5.0);
    assert_eq!((&story.state.policy, story.last_record().gates.as_str()), (&policy(0.01), "first"));
    let text = serde_json::to_string(&story.state).unwrap();
    let back: State = serde_json::from_str(&text).unwrap();
    assert_eq!(back.policy, policy(0.01), "a restart has them too");
    let silent = Event::Command { verb: Verb::Gates, actor: actor("olga"), reason: " ".to_owned() };
    assert_eq!(story.take(silent).unwrap_err().kind, RefusalKind::Invalid, "an override has a reason");
    assert_eq!(story.try_to("alice", Verb::Gates).unwrap_err().kind, RefusalKind::Forbidden);
    story.does("olga", Verb::Gates);
    assert_eq!((&story.state.policy, story.last_record().gates.as_str()), (&policy(0.02), "second"));
}

#[test]
fn a_version_that_fell_is_not_tried_again_before_it_is_cleared_whatever_is_done() {
    let mut story = in_phase(Phase::RolledBack);
    for verb in [Verb::Start, Verb::Resume, Verb::Promote { full: true }, Verb::SetWeight(percent(1.0)), Verb::Gates] {
        assert_eq!(story.try_to("olga", verb).unwrap_err().kind, RefusalKind::Conflict, "{verb:?}");
    }
    // Nor by taking it out of the file and naming it again, nor by a restart in between.
    let without = Terms { canary: None, ..story.terms.clone() };
    assert_eq!(reconcile(&story.state, &without), None);
    let (state, effects) = step(&without, &story.state, Event::CanaryRemoved, story.now).unwrap();
    assert_eq!((state.phase, effects.len()), (Phase::RolledBack, 0));
    story.state =
        serde_json::from_str::<State>(&serde_json::to_string(&state).unwrap()).unwrap().resume(story.now.mono);
    assert_eq!(reconcile(&story.state, &story.terms), None);
    story.ticks(HOUR * 1_000).is(Phase::RolledBack, 0.0);
    // Only by somebody who may, with a root cause; and the record holds both.
    for (who, why, kind) in [("victor", "x", RefusalKind::Forbidden), ("bob", "", RefusalKind::Invalid)] {
        let who = if who == "victor" { Actor::new(who, &[Role::Viewer, Role::Operator]) } else { actor(who) };
        let ask = Event::Command { verb: Verb::Clear, actor: who, reason: why.to_owned() };
        assert_eq!(story.take(ask).unwrap_err().kind, kind);
    }
    let clear = Event::Command { verb: Verb::Clear, actor: actor("bob"), reason: "a bad cache".to_owned() };
    story.take(clear).unwrap();
    let record = story.last_record();
    assert_eq!(
        (record.decision, record.actor.as_str(), record.reason.as_str()),
        (Decision::Clear, "bob", "a bad cache")
    );
    story.does("alice", Verb::Start).is(Phase::Running, 1.0);
}

/// What the judge says of a gate with `on = "step-back"`.
fn less() -> Event {
    Event::Judged(Verdict::StepBack { rule: "cost_mean".to_owned(), reason: "log e 9.1 > 7.6".to_owned() })
}

#[test]
fn a_gate_that_asks_for_less_takes_the_canary_one_stage_back_with_fresh_evidence_and_says_so() {
    for phase in [Phase::Running, Phase::Awaiting] {
        let mut story = in_phase(phase);
        let effects = story.take(less()).unwrap();
        story.is(Phase::Running, 1.0);
        assert_eq!((story.state.stage, story.state.resided, story.state.approvals.len()), (Some(0), Duration::ZERO, 0));
        let record = story.last_record();
        assert_eq!((record.decision, record.actor.as_str()), (Decision::StepBack, "judge"));
        assert_eq!((record.reason.as_str(), record.proven), ("cost_mean: log e 9.1 > 7.6", false));
        let (order, told): (Vec<_>, Vec<_>) = effects
            .iter()
            .map(|effect| match effect {
                Effect::Weight { .. } => ("down", ""),
                Effect::EnterStage { index: 0, .. } => ("fresh", ""),
                Effect::Record(_) => ("recorded", ""),
                Effect::Notify(notice) => ("told", notice.text.as_str()),
                other => panic!("{other:?}"),
            })
            .unzip();
        assert_eq!(order, ["down", "fresh", "recorded", "told"]);
        assert!(told[3].contains("goes back to stage 1 of 4, 1 %, by judge: cost_mean: log e 9.1 > 7.6"), "{told:?}");
        // It rises again on proof of its own, and no sooner than after the whole residence.
        story.passes(HOUR / 2).advance().is(Phase::Running, 1.0);
        story.passes(HOUR / 2).advance().does("bob", Verb::Approve).is(Phase::Running, 5.0);
    }
}

#[test]
fn from_the_first_stage_such_a_gate_takes_it_to_0_where_it_stands_and_is_not_latched() {
    let mut story = Trial::of(short(Approval::None));
    story.does("alice", Verb::Start).take(less()).unwrap();
    story.is(Phase::Paused, 0.0);
    assert_eq!((story.state.latch.clone(), story.state.cohorts()), (None, Cohorts::Closed));
    assert_eq!(story.state.paused.as_ref().map(|p| p.by.as_str()), Some("judge"));
    // Said again it changes nothing, and a person goes on.
    assert_eq!(story.take(less()).unwrap(), []);
    story.does("alice", Verb::Resume).is(Phase::Running, 1.0);
}

#[test]
fn where_no_step_back_is_lawful_such_a_gate_holds() {
    for phase in [Phase::Idle, Phase::Paused, Phase::Soaking, Phase::Completed, Phase::RolledBack] {
        let mut story = in_phase(phase);
        let before = story.state.clone();
        assert_eq!(story.take(less()).unwrap(), [], "{phase:?}");
        assert_eq!((story.state.phase, story.state.weight), (before.phase, before.weight));
    }
    let mut soaking = in_phase(Phase::Soaking);
    soaking.passes(HOUR).take(less()).unwrap();
    soaking.ticks(Duration::ZERO).is(Phase::Soaking, 99.0);
    soaking.advance().is(Phase::Completed, 100.0);
    // A worse word is heard wherever it is said.
    in_phase(Phase::Soaking).worse().is(Phase::RolledBack, 0.0);
}

//! The tables of a configuration file as they stand there: every key optional, no opinions.

use super::read::{At, File, Hidden, Later, Many, Named, Scalar, Text, TextOrTrue, tables};

tables! {
    /// The whole file.
    Root {
        admin: Admin,
        listeners: Named<Listener>,
        server: Server,
        log: Log,
        limits: Limits,
        drain: Drain,
        store: Store,
        fleet: Later,
        notify: Named<Notify>,
        triggers: Named<Trigger>,
        rollouts: Named<Rollout>,
    }
    /// `[admin]`
    Admin {
        listen: At<Text>,
        socket: At<File>,
        tls: ServerTls,
        probes: At<Text>,
        hosts: Vec<At<Text>>,
        tokens: Vec<Token>,
    }
    /// `[[admin.tokens]]`
    Token {
        name: At<Text>,
        roles: Vec<At<Text>>,
        secret: At<Hidden>,
    }
    /// `tls` of a listener or of admin
    ServerTls {
        certificate: At<File>,
        key: At<File>,
        client_ca: At<File>,
        min_version: At<Text>,
    }
    /// `[listeners.NAME]`
    Listener {
        listen: At<Text>,
        tls: ServerTls,
        trusted_proxies: Vec<At<Text>>,
        proxy_protocol: At<bool>,
        health: At<Text>,
    }
    /// `[server]`
    Server {
        workers: At<Scalar>,
    }
    /// `[log]`
    Log {
        level: At<Text>,
        format: At<Text>,
        access: At<File>,
    }
    /// `[limits]`
    Limits {
        connections: At<u64>,
        requests_per_connection: At<u64>,
        header_read: At<Text>,
        header_bytes: At<Text>,
        headers: At<u64>,
        uri_bytes: At<Text>,
        body_bytes: At<Text>,
        body_progress: At<Text>,
        idle: At<Text>,
        h2_streams: At<u64>,
        peek_bytes: At<Text>,
        turns: At<u64>,
        feedback_ids: At<u64>,
        feedback_items: At<u64>,
        feedback_per_user: At<u64>,
    }
    /// `[drain]`
    Drain {
        delay: At<Text>,
        timeout: At<Text>,
    }
    /// `[store]`
    Store {
        path: At<File>,
        retention: At<Text>,
        signing_key: At<File>,
    }
    /// `[notify.NAME]`
    Notify {
        kind: At<Text>,
        url: At<Hidden>,
        secret: At<Hidden>,
        from: At<Text>,
        to: Many<At<Text>>,
        events: Many<At<Text>>,
        summary: At<Text>,
        hours: At<Text>,
        every: At<Text>,
        timeout: At<Text>,
        keep: At<Text>,
        queue: At<u64>,
        ca: At<File>,
    }
    /// `[triggers.NAME]`
    Trigger {
        secret: At<Hidden>,
        rollouts: Many<At<Text>>,
        actions: Many<At<Text>>,
    }
    /// `[rollouts.NAME]`
    Rollout {
        r#match: Match,
        protocol: At<Text>,
        unit: Many<At<Text>>,
        contact: At<Text>,
        jwt: Jwt,
        salt: At<Hidden>,
        tag_responses: At<bool>,
        fallback: At<Text>,
        feedback: At<bool>,
        weight: At<f64>,
        limits: RolloutLimits,
        prices: Prices,
        exposure: Exposure,
        trace: Trace,
        safety: Safety,
        samples: Samples,
        sessions: Later,
        shadow: Later,
        cohorts: Vec<Cohort>,
        stable: Version,
        canary: Version,
        baseline: Baseline,
        register: Register,
        confirm: Named<Confirm>,
        plan: Plan,
        evaluator: Evaluator,
        gates: Named<Gate>,
        queries: Named<Query>,
    }
    /// `match`
    Match {
        host: At<Text>,
        path_prefix: At<Text>,
    }
    /// `jwt`
    Jwt {
        key: At<File>,
        unverified: At<bool>,
    }
    /// `limits` of a rollout
    RolloutLimits {
        body_bytes: At<Text>,
    }
    /// `prices`
    Prices {
        input: At<f64>,
        cached_input: At<f64>,
        cache_write: At<f64>,
        output: At<f64>,
        per: At<Text>,
    }
    /// `exposure`
    Exposure {
        max_users: At<u64>,
        max_requests: At<u64>,
        max_tokens: At<u64>,
        max_cost: At<Scalar>,
        on: At<Text>,
    }
    /// `safety`
    Safety {
        header: At<Text>,
        content_filter: At<bool>,
        rules: Many<At<Text>>,
    }
    /// `samples`
    Samples {
        share: At<Text>,
        keep: At<u64>,
        bytes: At<Text>,
        text: At<Text>,
        push: At<Hidden>,
    }
    /// `trace`
    Trace {
        path: At<File>,
        max_bytes: At<Text>,
    }
    /// `[[rollouts.NAME.cohorts]]`
    Cohort {
        name: At<Text>,
        when: Many<When>,
        to: At<Text>,
        weight: At<f64>,
    }
    /// `when`
    When {
        header: At<Text>,
        cookie: At<Text>,
        claim: At<Text>,
        query: At<Text>,
        path: At<TextOrTrue>,
        list: At<File>,
        ip: Many<At<Text>>,
        is: Many<At<Text>>,
        prefix: Many<At<Text>>,
        regex: At<Text>,
    }
    /// `[rollouts.NAME.stable]` and `canary`
    Version {
        version: At<Text>,
        endpoints: Vec<At<Text>>,
        http: At<Text>,
        host: At<Text>,
        strip_prefix: At<Text>,
        add_prefix: At<Text>,
        model: At<Text>,
        system: At<Text>,
        body: Named<At<Scalar>>,
        headers: Headers,
        tls: UpstreamTls,
        concurrency: At<u64>,
        timeouts: Timeouts,
        health: Health,
        ejection: Ejection,
        pool: Pool,
        prices: Prices,
    }
    /// `headers`
    Headers {
        set: Named<At<Hidden>>,
        remove: Vec<At<Text>>,
    }
    /// `tls` of a version
    UpstreamTls {
        ca: At<File>,
        certificate: At<File>,
        key: At<File>,
        server_name: At<Text>,
        min_version: At<Text>,
    }
    /// `timeouts`
    Timeouts {
        connect: At<Text>,
        first_byte: At<Text>,
        idle: At<Text>,
    }
    /// `health` of a version
    Health {
        path: At<Text>,
        interval: At<Text>,
    }
    /// `ejection`
    Ejection {
        failures: At<u64>,
        r#for: At<Text>,
        at_most: At<Text>,
    }
    /// `pool`
    Pool {
        idle: At<u64>,
        idle_for: At<Text>,
    }
    /// `[rollouts.NAME.baseline]`
    Baseline {
        enabled: At<bool>,
        endpoints: Vec<At<Text>>,
    }
    /// `[rollouts.NAME.register]`
    Register {
        digest: At<Text>,
        kind: At<Text>,
        risk: At<Text>,
        owner: At<Text>,
        contacts: Many<At<Text>>,
        shadow_evidence: Many<At<Text>>,
    }
    /// `[rollouts.NAME.confirm.NAME]`
    Confirm {
        r#type: At<Text>,
        url: At<Hidden>,
        secret: At<Hidden>,
        timeout: At<Text>,
        every: At<Text>,
        namespace: At<Text>,
        metadata: Named<At<Hidden>>,
        ca: At<File>,
    }
    /// `[rollouts.NAME.plan]`
    Plan {
        preset: At<Text>,
        start: At<Text>,
        second_version: At<Text>,
        soak: At<Text>,
        holdback: At<f64>,
        deadline: At<Text>,
        not_before: At<Text>,
        hours: At<Text>,
        freezes: Vec<At<Text>>,
        lockstep: At<Text>,
        stages: Vec<Stage>,
    }
    /// `[[rollouts.NAME.plan.stages]]`
    Stage {
        weight: At<f64>,
        residence: At<Text>,
        samples: At<u64>,
        approval: At<Text>,
        cohorts: Vec<At<Text>>,
    }
    /// `[rollouts.NAME.evaluator]`
    Evaluator {
        enabled: At<bool>,
        alpha: At<f64>,
        beta: At<f64>,
        warm_up: At<Text>,
        horizon: At<Text>,
        min_users: At<f64>,
        heartbeat_timeout: At<Text>,
        drill_every: At<Text>,
    }
    /// `[rollouts.NAME.gates.METRIC]`
    Gate {
        promote: At<Text>,
        rollback: At<Text>,
        limit: At<Scalar>,
        floor: At<Scalar>,
        on: At<Text>,
        stale: At<Text>,
        direction: At<Text>,
    }
    /// `[rollouts.NAME.queries.NAME]`
    Query {
        url: At<Hidden>,
        stable: At<Text>,
        canary: At<Text>,
        interval: At<Text>,
        stale: At<Text>,
        r#for: At<u64>,
    }
}

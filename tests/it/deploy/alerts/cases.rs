//! What makes each alert fire, and what does not.

/// What one alert makes of some series.
pub(super) struct Case {
    pub(super) alert: &'static str,
    /// Series and their samples, one a minute: `0+1x60` grows by 1 sixty times, `0x9` stays for nine more, `_x9` is nine missing ones.
    pub(super) series: &'static [(&'static str, &'static str)],
    /// Minutes in which it does not fire.
    pub(super) silent: &'static [u32],
    /// Minutes in which it does.
    pub(super) firing: &'static [u32],
    /// For what it fires then.
    pub(super) labels: &'static [&'static str],
}

pub(super) const CASES: &[Case] = &[
    Case {
        alert: "PlanrelayRunsStuck",
        series: &[("planrelay_stuck_runs", "0x4 2x20 0x20")],
        silent: &[4, 9, 30],
        firing: &[12, 24],
        labels: &["{}"],
    },
    Case {
        alert: "PlanrelayRunsFailing",
        series: &[
            (r#"planrelay_runs_ended_total{status="failed"}"#, "0+1x60"),
            (r#"planrelay_runs_ended_total{status="succeeded"}"#, "0+3x60"),
        ],
        silent: &[2],
        firing: &[20, 50],
        labels: &["{}"],
    },
    // One in ten fails, and cancelled runs do not count.
    Case {
        alert: "PlanrelayRunsFailing",
        series: &[
            (r#"planrelay_runs_ended_total{status="failed"}"#, "0+1x60"),
            (r#"planrelay_runs_ended_total{status="succeeded"}"#, "0+9x60"),
            (r#"planrelay_runs_ended_total{status="cancelled"}"#, "0+50x60"),
        ],
        silent: &[10, 30, 50],
        firing: &[],
        labels: &[],
    },
    // Every one fails, but they are two.
    Case {
        alert: "PlanrelayRunsFailing",
        series: &[(r#"planrelay_runs_ended_total{status="failed"}"#, "0x9 1x9 2x40")],
        silent: &[15, 30, 50],
        firing: &[],
        labels: &[],
    },
    Case {
        alert: "PlanrelayRunsPartial",
        series: &[
            (r#"planrelay_runs_ended_total{status="partial"}"#, "0+2x100"),
            (r#"planrelay_runs_ended_total{status="succeeded"}"#, "0+1x100"),
        ],
        silent: &[2],
        firing: &[30, 90],
        labels: &["{}"],
    },
    Case {
        alert: "PlanrelayRunsPartial",
        series: &[
            (r#"planrelay_runs_ended_total{status="partial"}"#, "0+1x100"),
            (r#"planrelay_runs_ended_total{status="succeeded"}"#, "0+2x100"),
        ],
        silent: &[30, 90],
        firing: &[],
        labels: &[],
    },
    Case {
        alert: "PlanrelayStepsFailing",
        series: &[
            (r#"planrelay_steps_total{outcome="failed",tool="search"}"#, "0+1x60"),
            (r#"planrelay_steps_total{outcome="succeeded",tool="search"}"#, "0+1x60"),
            (r#"planrelay_steps_total{outcome="failed",tool="analyze"}"#, "0+1x60"),
            (r#"planrelay_steps_total{outcome="succeeded",tool="analyze"}"#, "0+9x60"),
        ],
        silent: &[3],
        firing: &[20, 50],
        labels: &[r#"{tool="search"}"#],
    },
    // A series that begins with the event itself.
    Case {
        alert: "PlanrelayStepsPoisoned",
        series: &[
            (r#"planrelay_claims_total{slot="step",answer="poisoned",instance="a"}"#, "_x10 1x60"),
            (r#"planrelay_claims_total{slot="step",answer="execute",instance="a"}"#, "0+5x70"),
        ],
        silent: &[5, 30, 60],
        firing: &[15, 20],
        labels: &[r#"{slot="step"}"#],
    },
    Case {
        alert: "PlanrelayBacklogOld",
        series: &[("planrelay_backlog_age_seconds", "0x9 130+60x20 0x20")],
        silent: &[9, 13, 40],
        firing: &[17, 28],
        labels: &["{}"],
    },
    Case {
        alert: "PlanrelayNobodyConsumes",
        series: &[
            (r#"planrelay_queue_consumers{queue="steps"}"#, "2x9 0x20"),
            (r#"planrelay_queue_messages{queue="steps"}"#, "5x30"),
            (r#"planrelay_queue_consumers{queue="reports"}"#, "0x30"),
            (r#"planrelay_queue_messages{queue="reports"}"#, "0x30"),
        ],
        silent: &[9, 11],
        firing: &[14, 25],
        labels: &[r#"{queue="steps"}"#],
    },
    Case {
        alert: "PlanrelayNoPlannerPolls",
        series: &[("planrelay_overdue_seconds", "0x4 30 70+60x20")],
        silent: &[4, 7],
        firing: &[10, 20],
        labels: &["{}"],
    },
    // As long as an executor may take to stop, it is silent.
    Case {
        alert: "PlanrelayNotConsuming",
        series: &[
            (r#"planrelay_consuming{job="planrelay-executor",instance="a",queue="steps"}"#, "1x9 0x40"),
            (r#"planrelay_consuming{job="planrelay-executor",instance="b",queue="steps"}"#, "1x49"),
        ],
        silent: &[9, 21],
        firing: &[27, 40],
        labels: &[r#"{job="planrelay-executor",instance="a",queue="steps"}"#],
    },
    Case {
        alert: "PlanrelayDeadLetters",
        series: &[
            (r#"planrelay_dead_letters_total{queue="objectives",instance="a"}"#, "0x9 1x60"),
            (r#"planrelay_dead_letters_total{queue="controls",instance="a"}"#, "7x70"),
        ],
        // A counter that stands at 7 since before the first sample is news only to a Prometheus that has just begun.
        silent: &[30, 40, 60],
        firing: &[16, 20],
        labels: &[r#"{queue="objectives"}"#],
    },
    // A process that has just begun, and its first event is a dead letter.
    Case {
        alert: "PlanrelayDeadLetters",
        series: &[(r#"planrelay_dead_letters_total{queue="objectives",instance="new"}"#, "_x20 1x60")],
        silent: &[10, 40],
        firing: &[22, 30],
        labels: &[r#"{queue="objectives"}"#],
    },
    Case {
        alert: "PlanrelayModelFailing",
        series: &[
            (r#"planrelay_model_requests_total{model="m",outcome="transient"}"#, "0+1x60"),
            (r#"planrelay_model_requests_total{model="m",outcome="ok"}"#, "0+1x60"),
            (r#"planrelay_model_requests_total{model="n",outcome="exhausted"}"#, "0+9x60"),
            (r#"planrelay_model_requests_total{model="n",outcome="rate_limited"}"#, "0+9x60"),
            (r#"planrelay_model_requests_total{model="n",outcome="permanent"}"#, "0+1x60"),
        ],
        silent: &[3],
        firing: &[20, 50],
        labels: &[r#"{model="m"}"#],
    },
    Case {
        alert: "PlanrelayModelRateLimited",
        series: &[
            (r#"planrelay_model_requests_total{model="m",outcome="rate_limited"}"#, "0+1x60"),
            (r#"planrelay_model_requests_total{model="m",outcome="ok"}"#, "0+1x60"),
            (r#"planrelay_model_requests_total{model="n",outcome="rate_limited"}"#, "0+1x60"),
            (r#"planrelay_model_requests_total{model="n",outcome="ok"}"#, "0+9x60"),
        ],
        silent: &[10],
        firing: &[30, 50],
        labels: &[r#"{model="m"}"#],
    },
    Case {
        alert: "PlanrelayModelSlow",
        series: &[
            (r#"planrelay_model_duration_seconds_bucket{model="slow",le="60.0"}"#, "0+8x60"),
            (r#"planrelay_model_duration_seconds_bucket{model="slow",le="120.0"}"#, "0+10x60"),
            (r#"planrelay_model_duration_seconds_bucket{model="slow",le="+Inf"}"#, "0+10x60"),
            (r#"planrelay_model_duration_seconds_bucket{model="fast",le="60.0"}"#, "0+99x60"),
            (r#"planrelay_model_duration_seconds_bucket{model="fast",le="120.0"}"#, "0+100x60"),
            (r#"planrelay_model_duration_seconds_bucket{model="fast",le="+Inf"}"#, "0+100x60"),
        ],
        silent: &[10],
        firing: &[30, 50],
        labels: &[r#"{model="slow"}"#],
    },
    // One replica of two does not answer; of the executors none does, and nobody knows a console.
    Case {
        alert: "PlanrelayServiceDown",
        series: &[
            (r#"up{job="planrelay-planner",instance="a"}"#, "1x40"),
            (r#"up{job="planrelay-planner",instance="b"}"#, "0x40"),
            (r#"up{job="planrelay-executor",instance="c"}"#, "1x9 0x30"),
            (r#"up{job="planrelay-summarizer",instance="d"}"#, "1x40"),
        ],
        silent: &[1],
        firing: &[14, 30],
        labels: &[r#"{job="planrelay-executor"}"#, r#"{job="planrelay-console"}"#],
    },
    Case {
        alert: "PlanrelayCensusOld",
        series: &[("planrelay_census_age_seconds", "5x9 130+60x20 5x20")],
        silent: &[9, 13, 40],
        firing: &[17, 25],
        labels: &["{}"],
    },
    // A console that has never been able to look.
    Case {
        alert: "PlanrelayCensusOld",
        series: &[("planrelay_stuck_runs", "0x40")],
        silent: &[3],
        firing: &[10, 30],
        labels: &["{}"],
    },
    Case {
        alert: "PlanrelayReconnects",
        series: &[
            (r#"planrelay_reconnects_total{job="planrelay-planner",instance="a",server="broker"}"#, "0x9 0+1x20 20x30"),
            (r#"planrelay_reconnects_total{job="planrelay-planner",instance="b",server="broker"}"#, "0x20 1x40"),
        ],
        silent: &[9, 50],
        firing: &[20, 30],
        labels: &[r#"{job="planrelay-planner",instance="a",server="broker"}"#],
    },
    Case {
        alert: "PlanrelayPublishRefused",
        series: &[("planrelay_publish_retries_total", "0x9 0+60x20 1200x30")],
        silent: &[9, 12, 50],
        firing: &[20, 30],
        labels: &["{}"],
    },
    Case {
        alert: "PlanrelayBrokerAlarm",
        series: &[
            (r#"rabbitmq_alarms_memory_used_watermark{instance="a"}"#, "0x40"),
            (r#"rabbitmq_alarms_free_disk_space_watermark{instance="a"}"#, "0x9 1x20 0x20"),
            (r#"rabbitmq_alarms_memory_used_watermark{instance="b"}"#, "0x40"),
            (r#"rabbitmq_alarms_free_disk_space_watermark{instance="b"}"#, "0x40"),
        ],
        silent: &[9, 35],
        firing: &[13, 25],
        labels: &[r#"{instance="a"}"#],
    },
    Case {
        alert: "PlanrelayVersionsMixed",
        series: &[
            (r#"planrelay_build_info{version="1.0.0",instance="a"}"#, "1x200"),
            (r#"planrelay_build_info{version="1.0.0",instance="b"}"#, "1x9 _x190"),
            (r#"planrelay_build_info{version="1.1.0",instance="c"}"#, "_x9 1x190"),
        ],
        silent: &[9, 40],
        firing: &[90],
        labels: &["{}"],
    },
];

//! The manifests for Kubernetes: they fit the published schemas, fit together, and fit what the services are.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use common::config::{Config, SETTINGS, Sources};
use common::limits::{READY_TIMEOUT, RELEASE_MARGIN};
use common::message::Queue;
use jsonschema::Validator;
use serde_json::{Value, json};

use super::kustomize::{named, of_kind, render};
use super::{at, text};

const BASE: &str = "deploy/k8s/base";
const PRODUCTION: &str = "deploy/k8s/production";
const SERVICES: [&str; 4] = ["console", "executor", "planner", "summarizer"];

/// A validator for every kind of object, by `apiVersion kind`.
fn schemas() -> BTreeMap<String, Validator> {
    let mut schemas = BTreeMap::new();
    for file in ["kubernetes", "keda", "prometheus-operator"] {
        let file: Value = serde_json::from_str(&text(format!("tests/fixtures/schemas/{file}.json"))).unwrap();
        for (kind, root) in file["kinds"].as_object().unwrap() {
            let schema = json!({"$ref": root["$ref"], "$defs": file["$defs"]});
            schemas.insert(kind.clone(), jsonschema::validator_for(&schema).unwrap());
        }
    }
    schemas
}

/// What is wrong with an object.
fn complaints(schemas: &BTreeMap<String, Validator>, object: &Value) -> Vec<String> {
    let kind = format!("{} {}", at(object, "/apiVersion"), at(object, "/kind"));
    let schema = schemas.get(&kind).unwrap_or_else(|| panic!("there is no schema for {kind}"));
    schema.iter_errors(object).map(|error| format!("{kind} {}: {error}", error.instance_path())).collect()
}

#[test]
fn every_object_fits_its_schema() {
    let schemas = schemas();
    let mut kinds = BTreeSet::new();
    for folder in [BASE, PRODUCTION] {
        let mut names = BTreeSet::new();
        for object in render(folder) {
            assert_eq!(complaints(&schemas, &object), Vec::<String>::new(), "{folder}");
            kinds.insert(format!("{} {}", at(&object, "/apiVersion"), at(&object, "/kind")));
            assert!(names.insert((object["kind"].to_string(), object["metadata"]["name"].to_string())), "twice: {object}");
        }
    }
    assert_eq!(kinds, schemas.into_keys().collect(), "a schema that nothing needs");
}

#[test]
fn a_misspelt_field_does_not_fit() {
    let schemas = schemas();
    let objects = render(PRODUCTION);
    for (kind, name, parent, field) in [
        ("Deployment", "executor", "/spec/template/spec/containers/0", "livenesProbe"),
        ("Deployment", "executor", "/spec/template/spec", "terminationGraceSeconds"),
        ("Deployment", "executor", "/spec/template/spec/containers/0/readinessProbe/httpGet", "url"),
        ("NetworkPolicy", "planrelay", "/spec/egress/0", "from"),
        ("PodDisruptionBudget", "executor", "/spec", "maxAvailable"),
        ("ScaledObject", "executor", "/spec", "minReplicas"),
        ("ScaledObject", "executor", "/spec/triggers/0", "authentication"),
        ("TriggerAuthentication", "planrelay-rabbitmq", "/spec/secretTargetRef/0", "secret"),
        ("PodMonitor", "planrelay", "/spec/podMetricsEndpoints/0", "targetLabel"),
    ] {
        let mut object = named(&objects, kind, name).clone();
        object.pointer_mut(parent).unwrap()[field] = json!(1);
        assert_ne!(complaints(&schemas, &object), Vec::<String>::new(), "{kind} {parent}/{field}");
    }
}

/// A Deployment, and what its process is told.
struct Service<'o> {
    name: &'o str,
    deployment: &'o Value,
    pod: &'o Value,
    container: &'o Value,
    config: Config,
}

impl<'o> Service<'o> {
    fn labels(&self) -> &'o Value {
        &self.deployment["spec"]["template"]["metadata"]["labels"]
    }

    fn seconds(&self, pointer: &str) -> Duration {
        Duration::from_secs(
            self.pod.pointer(pointer).and_then(Value::as_u64).unwrap_or_else(|| panic!("{}: {pointer}", self.name)),
        )
    }
}

fn services(objects: &[Value]) -> Vec<Service<'_>> {
    let mut services: Vec<Service<'_>> = of_kind(objects, "Deployment").into_iter().map(|d| service(objects, d)).collect();
    services.sort_by_key(|service| service.name);
    assert_eq!(services.iter().map(|service| service.name).collect::<Vec<_>>(), SERVICES);
    services
}

fn service<'o>(objects: &'o [Value], deployment: &'o Value) -> Service<'o> {
    let name = at(deployment, "/metadata/name");
    let pod = &deployment["spec"]["template"]["spec"];
    let [container] = pod["containers"].as_array().unwrap().as_slice() else { panic!("{name}: one container") };
    let mut environment = BTreeMap::new();
    for source in container["envFrom"].as_array().unwrap() {
        let data = &named(objects, "ConfigMap", at(source, "/configMapRef/name"))["data"];
        environment
            .extend(data.as_object().unwrap().iter().map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())));
    }
    for variable in container["env"].as_array().unwrap() {
        let (variable, value) = (at(variable, "/name"), variable["value"].as_str().or_else(|| secret(variable)));
        environment.insert(variable.to_owned(), value.unwrap_or_else(|| panic!("{name}: {variable}")).to_owned());
    }
    for variable in environment.keys() {
        assert!(SETTINGS.iter().any(|setting| setting.variable == variable), "{name}: {variable} is no setting");
    }
    let config = Config::load(Sources { environment, ..Sources::default() }).unwrap_or_else(|error| panic!("{name}: {error}"));
    Service { name, deployment, pod, container, config: config.config }
}

/// What stands for a secret, which is not here.
fn secret(variable: &Value) -> Option<&'static str> {
    assert_eq!(at(variable, "/valueFrom/secretKeyRef/name"), "planrelay");
    assert_eq!(at(variable, "/valueFrom/secretKeyRef/key"), at(variable, "/name"));
    match at(variable, "/name") {
        "AMQP_URL" => Some("amqp://user:password@rabbitmq:5672/%2f"),
        "REDIS_URL" => Some("redis://:password@redis:6379"),
        "OPENAI_API_KEY" | "PLANRELAY_API_TOKEN" => Some("a secret"),
        _unknown => None,
    }
}

/// And every secret setting comes from there: nothing secret is in the repository.
#[test]
fn settings_are_real_and_secrets_are_elsewhere() {
    for folder in [BASE, PRODUCTION] {
        let objects = render(folder);
        assert_eq!(of_kind(&objects, "Secret").len(), 0);
        for service in services(&objects) {
            assert_eq!(service.config.http.token.is_some(), service.name == "console", "who answers calls asks for a token");
            for variable in service.container["env"].as_array().unwrap() {
                let name = at(variable, "/name");
                let setting = SETTINGS.iter().find(|setting| setting.variable == name).unwrap();
                assert_eq!(setting.secret, variable.get("valueFrom").is_some(), "{}: {name}", service.name);
            }
            let data = &named(&objects, "ConfigMap", "planrelay")["data"];
            for setting in SETTINGS.iter().filter(|setting| setting.secret) {
                assert_eq!(data.get(setting.variable), None, "{}", setting.variable);
            }
        }
    }
}

#[test]
fn probes_and_ports_are_those_of_the_services() {
    let objects = render(BASE);
    for service in services(&objects) {
        let name = service.name;
        let listens = service.config.http.listen.unwrap_or_else(|| panic!("{name}: PLANRELAY_HTTP"));
        assert!(listens.ip().is_unspecified(), "{name}: the kubelet cannot reach {listens}");
        assert_eq!(service.container["ports"], json!([{"name": "http", "containerPort": listens.port()}]), "{name}");
        for (probe, path) in [("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")] {
            let found = &service.container[probe];
            assert_eq!(found["httpGet"], json!({"path": path, "port": "http"}), "{name}: {probe}");
            assert!(found["timeoutSeconds"].as_u64() > Some(READY_TIMEOUT.as_secs()), "{name}: {probe}");
        }
        let [page] = of_kind(&objects, "Service").into_iter().filter(|s| s["metadata"]["name"] == name).collect::<Vec<_>>()[..]
        else {
            panic!("{name}: one Service")
        };
        assert_eq!(page["spec"]["ports"], json!([{"name": "http", "port": listens.port(), "targetPort": "http"}]), "{name}");
    }
}

/// Nobody is killed while it finishes what it has, and a step that has just begun may take its time.
#[test]
fn there_is_time_to_finish() {
    for folder in [BASE, PRODUCTION] {
        for service in services(&render(folder)) {
            let run = &service.config.run;
            let (patience, needed) = (service.seconds("/terminationGracePeriodSeconds"), run.shutdown_grace + RELEASE_MARGIN);
            assert!(patience > needed, "{}: killed after {patience:?}, and may need {needed:?}", service.name);
            if service.name == "executor" {
                assert!(run.shutdown_grace >= run.step_timeout, "{:?} < {:?}", run.shutdown_grace, run.step_timeout);
            }
            let rolling =
                json!({"maxUnavailable": 0, "maxSurge": service.deployment["spec"]["strategy"]["rollingUpdate"]["maxSurge"]});
            assert_eq!(service.deployment["spec"]["strategy"], json!({"type": "RollingUpdate", "rollingUpdate": rolling}));
        }
    }
}

#[test]
fn every_pod_is_contained() {
    let user =
        json!({"runAsNonRoot": true, "runAsUser": 65532, "runAsGroup": 65532, "seccompProfile": {"type": "RuntimeDefault"}});
    let contained = json!({"allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": {"drop": ["ALL"]}});
    let objects = render(BASE);
    let account = at(&objects.iter().find(|o| o["kind"] == "ServiceAccount").unwrap()["metadata"], "/name");
    for Service { name, pod, container, .. } in services(&objects) {
        assert_eq!(pod["securityContext"], user, "{name}");
        assert_eq!(container["securityContext"], contained, "{name}");
        assert_eq!(pod["automountServiceAccountToken"], false, "{name}");
        assert_eq!(pod["serviceAccountName"], account, "{name}");
        assert_eq!(pod["enableServiceLinks"], false, "{name}");
        for (kind, resource) in [("requests", "cpu"), ("requests", "memory"), ("limits", "memory")] {
            assert!(container["resources"][kind][resource].is_string(), "{name}: {kind} of {resource}");
        }
    }
}

/// The images are the targets of the Dockerfile in this version, and the example names another place for each.
#[test]
fn images_are_those_that_are_built() {
    let version = env!("CARGO_PKG_VERSION");
    let image = |service: &str| if service == "console" { "planrelay" } else { service }.to_owned();
    for (folder, registry) in [(BASE, ""), (PRODUCTION, "registry.example.com/")] {
        for service in services(&render(folder)) {
            let expected = format!("{registry}planrelay/{}:{version}", image(service.name));
            assert_eq!(service.container["image"], expected, "{folder}");
        }
    }
}

/// Whether a label selector selects labels.
fn selects(selector: &Value, labels: &Value) -> bool {
    let equal = selector["matchLabels"].as_object().into_iter().flatten().all(|(key, value)| labels[key] == *value);
    let one_of = selector["matchExpressions"].as_array().into_iter().flatten().all(|expression| {
        assert_eq!(expression["operator"], "In");
        expression["values"].as_array().unwrap().contains(&labels[at(expression, "/key")])
    });
    equal && one_of
}

#[test]
fn selectors_find_their_pods() {
    let objects = render(PRODUCTION);
    let services = services(&objects);
    let selected = |selector: &Value| -> Vec<&str> {
        services.iter().filter(|service| selects(selector, service.labels())).map(|service| service.name).collect()
    };
    for service in &services {
        let name = service.name;
        assert_eq!(selected(&service.deployment["spec"]["selector"]), [name]);
        assert_eq!(selected(&json!({"matchLabels": named(&objects, "Service", name)["spec"]["selector"]})), [name]);
        assert_eq!(selected(&named(&objects, "PodDisruptionBudget", name)["spec"]["selector"]), [name]);
        for spread in service.pod["topologySpreadConstraints"].as_array().unwrap() {
            assert_eq!(selected(&spread["labelSelector"]), [name]);
        }
    }
    for kind in ["Service", "PodDisruptionBudget"] {
        assert_eq!(of_kind(&objects, kind).len(), services.len(), "{kind}");
    }
    let monitor = named(&objects, "PodMonitor", "planrelay");
    assert_eq!(selected(&monitor["spec"]["selector"]), SERVICES);
    assert_eq!(at(monitor, "/spec/podMetricsEndpoints/0/port"), "http");
    assert_eq!(at(monitor, "/spec/podMetricsEndpoints/0/path"), "/metrics");
    assert_eq!(at(monitor, "/spec/podMetricsEndpoints/0/relabelings/0/replacement"), "planrelay-$1");
}

/// What each pod may do on the network is closed, and then opened at named places.
#[test]
fn the_network_is_closed_but_for_what_is_needed() {
    let objects = render(BASE);
    let services = services(&objects);
    let mut egress: BTreeMap<&str, BTreeSet<u64>> = BTreeMap::new();
    let mut ingress: BTreeMap<&str, usize> = BTreeMap::new();
    for policy in of_kind(&objects, "NetworkPolicy") {
        let spec = &policy["spec"];
        let chosen: Vec<&str> = services
            .iter()
            .filter(|service| selects(&spec["podSelector"], service.labels()))
            .map(|service| service.name)
            .collect();
        assert!(!chosen.is_empty(), "{} chooses nobody", policy["metadata"]["name"]);
        for rule in spec["ingress"].as_array().into_iter().flatten() {
            assert!(rule["from"].is_array(), "everybody may come in: {policy}");
            assert_eq!(rule["ports"], json!([{"protocol": "TCP", "port": "http"}]));
            chosen.iter().for_each(|name| *ingress.entry(name).or_default() += 1);
        }
        let out = spec["egress"].as_array().into_iter().flatten().flat_map(|rule| rule["ports"].as_array().unwrap());
        let ports: BTreeSet<u64> = out.map(|port| port["port"].as_u64().unwrap()).collect();
        chosen.iter().for_each(|name| egress.entry(name).or_default().extend(&ports));
    }
    let deny = named(&objects, "NetworkPolicy", "planrelay-deny");
    assert_eq!(deny["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
    assert!(services.iter().all(|service| selects(&deny["spec"]["podSelector"], service.labels())));
    // Names; RabbitMQ and Redis, plain and with TLS; Sentinel; a model over HTTPS.
    let out = BTreeSet::from([53, 443, 5671, 5672, 6379, 6380, 26379]);
    for service in SERVICES {
        // The console is the only one that somebody else than Prometheus calls.
        let comes = if service == "console" { 2 } else { 1 };
        assert_eq!((&egress[service], ingress[service]), (&out, comes), "{service}");
    }
}

/// KEDA scales by what one executor can hold of the queue that executors consume.
#[test]
fn keda_counts_the_steps() {
    let objects = render(PRODUCTION);
    let services = services(&objects);
    let executor = services.iter().find(|service| service.name == "executor").unwrap();
    let scaled = named(&objects, "ScaledObject", "executor");
    assert_eq!(scaled["spec"]["scaleTargetRef"], json!({"name": "executor"}));
    assert_eq!(executor.deployment["spec"].get("replicas"), None, "an apply would set back what KEDA has decided");
    let [trigger] = scaled["spec"]["triggers"].as_array().unwrap().as_slice() else { panic!("one trigger") };
    assert_eq!(trigger["type"], "rabbitmq");
    let expected = json!({
        "protocol": "http", "mode": "QueueLength", "activationValue": "0", "excludeUnacknowledged": "false", "vhostName": "/",
        "queueName": Queue::Steps.name(&executor.config.prefix), "value": executor.config.run.concurrency.to_string(),
    });
    assert_eq!(trigger["metadata"], expected);
    let authentication = named(&objects, "TriggerAuthentication", at(trigger, "/authenticationRef/name"));
    let given = authentication["spec"]["secretTargetRef"].as_array().unwrap().iter().map(|one| at(one, "/parameter"));
    assert_eq!(given.collect::<Vec<_>>(), ["host", "username", "password"]);
    let number = |pointer: &str| scaled.pointer(pointer).and_then(Value::as_u64).unwrap();
    assert!(Duration::from_secs(number("/spec/cooldownPeriod")) > executor.config.run.step_timeout);
    assert!(number("/spec/minReplicaCount") <= number("/spec/fallback/replicas"));
    assert!(number("/spec/fallback/replicas") <= number("/spec/maxReplicaCount"));
}

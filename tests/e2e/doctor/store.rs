//! A Redis with something wrong.

use support::servers::PrivateRedis;
use support::stack::{Stack, amqp_url};

use super::{Expected, doctor};

/// Expects this of a server with these settings.
async fn check(settings: &[(&str, &str)], code: i32, expected: &[Expected<'_>]) {
    let redis = PrivateRedis::start(settings).await;
    let stack = Stack::new(&[]).await;
    doctor(&stack, &[("REDIS_URL", &redis.url())], &[]).await.is(code, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_server_may_lose_is_told() {
    let evicts = "CONFIG SET maxmemory-policy noeviction";
    check(&[("maxmemory-policy", "allkeys-lru")], 2, &[("redis_eviction", "failed", "is allkeys-lru", evicts)]).await;
    check(&[], 0, &[("redis_persistence", "ok", "appendfsync always: what was answered survives", "")]).await;
    check(&[("appendfsync", "everysec")], 0, &[("redis_persistence", "ok", "loses the last second", "")]).await;
    check(&[("appendfsync", "no")], 0, &[("redis_persistence", "warning", "half minute", "appendfsync everysec")]).await;
    let append = "CONFIG SET appendonly yes";
    check(&[("appendonly", "no")], 0, &[("redis_persistence", "warning", "nothing is kept on disk", append)]).await;
    let snapshots = [("appendonly", "no"), ("save", "3600 1")];
    check(&snapshots, 0, &[("redis_persistence", "warning", "snapshots only (save 3600 1)", append)]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_takes_no_writes_is_told() {
    let redis = PrivateRedis::start(&[("save", "3600 1"), ("enable-protected-configs", "yes")]).await;
    let stack = Stack::on(&amqp_url(), &redis.url(), &[]).await;
    let look = async || doctor(&stack, &[], &[]).await;
    look().await.is(0, &[("redis_memory", "ok", "no limit but the machine's", ""), ("dead_letters", "ok", "none", "")]);
    let list = format!("{}:dead", stack.prefix());
    let _one: i64 = redis.command(&["LPUSH", &list, "{}"]).await.unwrap();
    look().await.is(0, &[("dead_letters", "warning", "1 kept for people", &format!("LRANGE {list} 0 9"))]);

    // A snapshot that cannot be written: its name is that of a folder.
    redis.set("dbfilename", "appendonlydir").await;
    let _started: String = redis.command(&["BGSAVE"]).await.unwrap();
    let failed = async || redis.command::<String>(&["INFO", "persistence"]).await.unwrap().contains("rdb_last_bgsave_status:err");
    stack.until("the snapshot has failed", failed).await;
    look().await.is(1, &[("redis_persistence", "failed", "writing a snapshot has failed", "df -h")]);
    redis.set("stop-writes-on-bgsave-error", "no").await;
    look().await.is(0, &[("redis_persistence", "ok", "", "")]);

    redis.set("maxmemory", "1mb").await;
    look().await.is(1, &[("redis_memory", "failed", "writes are refused", "CONFIG SET maxmemory")]);
    redis.set("maxmemory", "1gb").await;
    look().await.is(0, &[("redis_memory", "ok", "of 1024 MiB in use", "")]);

    let primary = PrivateRedis::start(&[]).await;
    redis.replicate(Some(&primary)).await;
    let mend = format!("export REDIS_URL=redis://{}", primary.address());
    look().await.is(2, &[("redis", "failed", "it takes no writes", &mend)]);
    redis.replicate(None).await;
    redis.pause();
    look().await.is(5, &[("redis", "failed", "no answer within 5 s", "systemctl start"), ("redis_eviction", "skipped", "", "")]);
    redis.resume();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_enter_or_may_not_do_enough_is_told() {
    let redis = PrivateRedis::start(&[]).await;
    let stack = Stack::on(&amqp_url(), &redis.url(), &[]).await;
    let prefix = stack.prefix();
    let keys = format!("~{prefix}:*");
    let user = async |rules: &[&str]| {
        let words = [&["ACL", "SETUSER", "small", "reset", "on", ">s3cret"], rules].concat();
        let _ok: String = redis.command(&words).await.unwrap();
    };
    let url = redis.url().replace("redis://", "redis://small:s3cret@");
    let at = async |url: &str| doctor(&stack, &[("REDIS_URL", url)], &[]).await;
    at(&url).await.is(5, &[("redis", "failed", "refuses user or password", "export REDIS_URL=")]);

    user(&[&keys, "+@all", "-config"]).await;
    at(&url).await.is(
        0,
        &[
            ("redis", "ok", "takes writes", ""),
            ("redis_eviction", "ok", "noeviction", ""),
            ("redis_persistence", "warning", "CONFIG is not permitted", "CONFIG GET appendfsync"),
            ("redis_permissions", "ok", "every command", ""),
        ],
    );
    user(&[&keys, "+@all", "-info"]).await;
    at(&url).await.is(
        0,
        &[
            ("redis", "ok", "Redis 7.", ""),
            ("redis_eviction", "ok", "noeviction", ""),
            ("redis_memory", "ok", "no limit but the machine's", ""),
            ("redis_persistence", "ok", "appendfsync always", ""),
        ],
    );
    user(&[&keys, "+@all", "-config", "-info"]).await;
    at(&url).await.is(
        0,
        &[
            ("redis_eviction", "warning", "not known", "CONFIG GET maxmemory-policy"),
            ("redis_memory", "skipped", "not known", ""),
            ("redis_persistence", "warning", "not known", "CONFIG GET appendonly"),
        ],
    );
    user(&[&keys, "+@all", "-hset", "-xadd", "-lpush"]).await;
    let lacks = format!("HSET, LPUSH, XADD on {prefix}:*: enough to read and to submit, for no service");
    let mend = format!("ACL SETUSER USER '{keys}' +hset +lpush +xadd");
    at(&url).await.is(0, &[("redis_permissions", "warning", &lacks, &mend)]);
    user(&["~other:*", "+@all"]).await;
    let report = at(&url).await;
    report.is(5, &[("redis_permissions", "failed", "may not do DEL, GET", &keys), ("dead_letters", "warning", "not known", "")]);
    user(&[&keys, "+@all", "-evalsha"]).await;
    at(&url).await.is(5, &[("redis_permissions", "failed", "EVALSHA", "+evalsha")]);
    user(&[&keys, "+@all", "-@scripting"]).await;
    at(&url).await.is(5, &[("redis_permissions", "failed", "scripts do not run", "+@scripting")]);

    // Nothing was written meanwhile.
    let kept: Vec<String> = redis.command(&["KEYS", "*"]).await.unwrap();
    assert_eq!(kept, Vec::<String>::new());
    // The default user has a password from now on.
    redis.set("requirepass", "s3cret").await;
    at(&redis.url()).await.is(5, &[("redis", "failed", "refuses user or password", "export REDIS_URL=")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_and_a_single_server_are_told_apart() {
    let stack = Stack::new(&[]).await;
    let single = PrivateRedis::start(&[]).await;
    let twice = format!("{0},{0}", single.url());
    let at = async |url: &str| doctor(&stack, &[("REDIS_URL", url)], &[]).await;
    let none = ("redis", "failed", "is no node of a cluster, but REDIS_URL names several", "export REDIS_URL=redis://HOST:PORT");
    at(&twice).await.is(2, &[none, none]);

    let node = PrivateRedis::start(&[("cluster-enabled", "yes")]).await;
    let url = node.url();
    at(&url).await.is(2, &[("redis", "failed", "is a node of a cluster, but REDIS_URL names one", "export REDIS_URL=")]);
    let mend = format!("redis-cli --cluster fix {}", node.address());
    at(&format!("{url},{url}")).await.is(1, &[("redis_cluster", "failed", "0 of 16384 slots", &mend)]);
    let _ok: String = node.command(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]).await.unwrap();
    let serves = async || node.command::<String>(&["CLUSTER", "INFO"]).await.unwrap().contains("cluster_state:ok");
    stack.until("the cluster serves", serves).await;
    // One of two seeds is down: the cluster is there all the same.
    at(&format!("{url},redis://127.0.0.1:9")).await.is(
        0,
        &[
            ("redis_cluster", "ok", "16384 of 16384 slots served, by 1 primary node", ""),
            ("redis", "warning", "redis://127.0.0.1:9: cannot be reached", ""),
            ("dead_letters", "ok", "none", ""),
        ],
    );
}

"""OpenStack Swift with its S3 API in one process, for tests that need a server which checks signatures.

    /usr/bin/python3 swift_server.py FOLDER PORT [LOCATION]

Serves S3 (region LOCATION, us-east-1) on 127.0.0.1:PORT; data, configuration and rings lie below FOLDER (whose file system must know extended attributes).  Prints
"ready" when it serves.  Access keys are ACCOUNT:USER, see USERS.  Signatures, payload hashes, clock skew (5 minutes) and policies by
account are Swift's own code.
"""
import os
import sys

USERS = {"test:ada": "secret-of-ada", "test:reader": "secret-of-reader"}  # ada may do everything, reader what ACLs permit

PROXY = """
[DEFAULT]
swift_dir = {dir}
log_level = INFO
[pipeline:main]
pipeline = catch_errors cache s3api tempauth proxy-server
[app:proxy-server]
use = egg:swift#proxy
allow_account_management = true
account_autocreate = true
[filter:catch_errors]
use = egg:swift#catch_errors
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:9
[filter:s3api]
use = egg:swift#s3api
location = {location}
s3_acl = true
allow_no_owner = true
auth_pipeline_check = false
[filter:tempauth]
use = egg:swift#tempauth
{users}
"""
BACKEND = """
[DEFAULT]
devices = {dir}/devices
mount_check = false
swift_dir = {dir}
bind_ip = 127.0.0.1
bind_port = {port}
fallocate_reserve = 0
disable_fallocate = true
log_level = INFO
[pipeline:main]
pipeline = {kind}-server
[app:{kind}-server]
use = egg:swift#{kind}
"""


def main(folder, port, location="us-east-1", address="127.0.0.1"):
    import eventlet
    eventlet.monkey_patch()
    from eventlet import wsgi
    os.makedirs(f"{folder}/devices/disk", exist_ok=True)
    with open(f"{folder}/swift.conf", "w", encoding="utf-8") as f:
        f.write("[swift-hash]\nswift_hash_path_suffix = test\nswift_hash_path_prefix = test\n")
    # Swift reads it from a fixed place unless told before anything else is imported.
    from swift.common import utils
    utils.SWIFT_CONF_FILE = f"{folder}/swift.conf"
    utils.HASH_PATH_SUFFIX, utils.HASH_PATH_PREFIX = b"test", b"test"
    from swift.common.ring import RingBuilder
    from swift.common.storage_policy import reload_storage_policies
    from swift.common.wsgi import loadapp
    reload_storage_policies()
    sockets = {kind: eventlet.listen(("127.0.0.1", 0)) for kind in ("account", "container", "object")}
    sockets["proxy"] = eventlet.listen((address, port))
    for kind in ("account", "container", "object"):
        ring = RingBuilder(1, 1, 0)
        ring.add_dev({"id": 0, "region": 1, "zone": 1, "ip": "127.0.0.1", "port": sockets[kind].getsockname()[1], "device": "disk",
                      "weight": 1})
        ring.rebalance()
        ring.get_ring().save(f"{folder}/{kind}.ring.gz")
    users = "\n".join(f"user_{u.replace(':', '_')} = {secret}{' .admin' if u == 'test:ada' else ''}" for u, secret in USERS.items())
    for kind, sock in sockets.items():
        conf = f"{folder}/{kind}.conf"
        with open(conf, "w", encoding="utf-8") as f:
            f.write((PROXY if kind == "proxy" else BACKEND).format(dir=folder, kind=kind, port=sock.getsockname()[1], users=users,
                                                                     location=location))
        app = loadapp(conf, global_conf={"log_name": kind})
        if kind != "proxy":
            eventlet.spawn(wsgi.server, sock, app, open(f"{folder}/{kind}.log", "w", encoding="utf-8"))
    print("ready", flush=True)
    wsgi.server(sockets["proxy"], app, sys.stderr)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])

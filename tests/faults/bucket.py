"""A bucket as S3 has them, on this machine: everything that talks to it is what talks to S3."""

import subprocess
import sys
import time
import urllib.error
import urllib.request

import boto3

from tests.integration.server import free_port

KEYS = {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "nothing", "AWS_DEFAULT_REGION": "us-east-1"}


class Bucket:
    """A server with an empty bucket, in memory; nobody outside this machine can reach it."""

    def __init__(self):
        port = free_port()
        endpoint = f"http://127.0.0.1:{port}"
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(endpoint, timeout=5).close()
                break
            except (urllib.error.URLError, OSError):
                assert time.monotonic() < deadline and self.process.poll() is None, "no S3 server"
                time.sleep(0.2)
        self.client = boto3.client(
            "s3", endpoint_url=endpoint, region_name=KEYS["AWS_DEFAULT_REGION"],
            aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"], aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        )  # fmt: skip
        self.client.create_bucket(Bucket="bucket")
        self.uri = f"s3://bucket/models?endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1"

    def names(self):
        """What lies in it."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket="bucket")
        return [entry["Key"] for page in pages for entry in page.get("Contents", ())]

    def read(self, name):
        """The one file of that name."""
        (key,) = (key for key in self.names() if key.rsplit("/")[-1] == name)
        return self.client.get_object(Bucket="bucket", Key=key)["Body"].read()

    def close(self):
        self.process.terminate()
        self.process.wait()

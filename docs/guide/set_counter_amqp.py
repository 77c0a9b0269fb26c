"""The counter of set_counter.py, woken by RabbitMQ (pip install pika). API_URL, API_TOKEN, AMQP_URL."""
import json, os, time
import pika
from set_counter import call, serve

QUEUE = "syncsets.work.py-counter"

def consume():
    connection = pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"]))
    channel = connection.channel()
    channel.queue_declare(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
    channel.basic_qos(prefetch_count=16)
    for method, _, body in channel.consume(QUEUE, inactivity_timeout=5):
        if method is None:
            serve()  # a quiet queue is no proof that there is nothing to do
            continue
        key = json.loads(body)  # a key, or {"map": type}: changes of a watched type, which any claim brings
        serve(keys=[{part: key[part] for part in ("type", "namespace", "name") if part in key}] if "name" in key else [])
        channel.basic_ack(method.delivery_tag)  # after the claim; a key that is not to be had is somebody else's

call("PUT", "controllers/py-counter", {"type": "clusters", "watches": ["syncsets"]})
while True:
    try: consume()
    except OSError: time.sleep(1)  # the API is away, or the broker's address
    except pika.exceptions.AMQPError: serve(waitSeconds=2)  # the broker is away: go on over HTTP

"""The counter of set_counter.py, woken by RabbitMQ (pip install pika). API_URL, API_TOKEN, AMQP_URL."""
import json, os, sys, time
from urllib.error import HTTPError
import pika
from set_counter import call, serve

QUEUE = "syncsets.work.py-counter"

def keys_of(body):
    """What to claim for a message: its key; none for {"map": type}, changes of a watched type, which any claim brings."""
    message = json.loads(body)
    if not isinstance(message, dict): raise ValueError("it is no JSON object")
    if "map" in message: return []
    return [{part: message[part] for part in ("type", "namespace", "name") if part in message}]

def take(body):
    """Works for a message. One by a foreign hand is used up too: it would come again at once, before all others, for ever."""
    try:
        refused = serve(messages=keys_of(body), max=1).get("refused", [])
    except (ValueError, RecursionError) as error:  # no JSON, or such as no parser takes
        refused = [{"reason": str(error)}]
    except HTTPError as error:  # an OSError, but of this message unless the API asks to be asked again
        if error.code not in (400, 422): raise
        refused = [{"reason": error.read().decode()}]
    for one in refused: print("dropped a message of", QUEUE, one["reason"], file=sys.stderr)

def consume():
    call("PUT", "controllers/py-counter", {"type": "clusters", "watches": ["syncsets"]})
    connection = pika.BlockingConnection(pika.URLParameters(os.environ["AMQP_URL"]))
    channel = connection.channel()
    channel.queue_declare(QUEUE, durable=True, arguments={"x-queue-type": "quorum"})
    channel.basic_qos(prefetch_count=16)
    for method, _, body in channel.consume(QUEUE, inactivity_timeout=5):
        if method is None:
            serve()  # a quiet queue is no proof that there is nothing to do
            continue
        take(body)
        channel.basic_ack(method.delivery_tag)  # after the claim, which may bring a more urgent key: this one is sent again

while True:
    try: consume()
    except OSError: time.sleep(1)  # the API is away, or the broker's address
    except pika.exceptions.AMQPError:  # the broker is away: go on over HTTP
        try: serve(waitSeconds=2)
        except OSError: time.sleep(1)  # and so is the API

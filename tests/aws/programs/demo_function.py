"""The handler of the demo."""

from chassis.aws import handler_for

lambda_handler = handler_for("demo")

"""A ROS 2 node: images of the topic `image` in, masks (`mask`) and, where somebody listens, overlays (`overlay`) out.

    python examples/ros2_node.py --ros-args -p bundle:=runs/first/student.bundle -r image:=/camera/image_raw

Run it with the Python of ROS 2, into which `pip install edgedistill` (the base install) has gone.
"""

import numpy as np
import rclpy  # pyright: ignore[reportMissingImports]
from rclpy.node import Node  # pyright: ignore[reportMissingImports]
from rclpy.qos import qos_profile_sensor_data  # pyright: ignore[reportMissingImports]
from sensor_msgs.msg import Image  # pyright: ignore[reportMissingImports]

import edgedistill
from deploy.errors import UserError, exit_with_one_line
from deploy.visualize import overlay

CHANNELS = {"rgb8": 3, "bgr8": 3, "mono8": 1}


def to_array(message: Image) -> np.ndarray:
    """The pixels of a message, uint8 H×W×C; color as RGB. Rows may have padding (`step`)."""
    if message.encoding not in CHANNELS:
        raise UserError(f"images are {message.encoding}; publish {', '.join(CHANNELS)}")
    channels = CHANNELS[message.encoding]
    rows = np.frombuffer(message.data, np.uint8).reshape(message.height, message.step)
    image = rows[:, : message.width * channels].reshape(message.height, message.width, channels)
    return image[..., ::-1] if message.encoding == "bgr8" else image


def to_message(image: np.ndarray, encoding: str, like: Image) -> Image:
    """A message with the pixels uint8 H×W or H×W×3, and the time and frame of another one."""
    message = Image(header=like.header, height=image.shape[0], width=image.shape[1], encoding=encoding)
    message.step, message.data = image[0].size, np.ascontiguousarray(image).tobytes()
    return message


class Segmenter(Node):
    """Predicts the newest image; a queue of one leaves out what comes while it is busy."""

    def __init__(self) -> None:
        super().__init__("segmenter")
        self._model = edgedistill.load(self.declare_parameter("bundle", "student.bundle").value)
        self._mask = self.create_publisher(Image, "mask", 1)
        self._overlay = self.create_publisher(Image, "overlay", 1)
        self.create_subscription(Image, "image", self.on_image, qos_profile_sensor_data)

    def on_image(self, message: Image) -> None:
        """Publish the mask of an image: class numbers, 255 where there is no data."""
        try:
            image = to_array(message)
            result = self._model(image)
        except UserError as error:
            self.get_logger().error(str(error), throttle_duration_sec=5.0)
            return
        self._mask.publish(to_message(result.labels, "mono8", message))
        if self._overlay.get_subscription_count():
            drawn = overlay(image, result.labels, self._model.classes, legend=False)
            self._overlay.publish(to_message(drawn, "rgb8", message))


def main() -> None:
    """Run the node until it is stopped."""
    rclpy.init()
    try:
        node = Segmenter()
        try:
            rclpy.spin(node)
        finally:
            node.destroy_node()
    except KeyboardInterrupt:
        pass
    finally:
        rclpy.try_shutdown()


if __name__ == "__main__":
    exit_with_one_line(main)

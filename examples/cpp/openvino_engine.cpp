// By OpenVINO's C++ interface, on the CPU, in the precision of the file.
#include <algorithm>
#include <openvino/openvino.hpp>

#include "engine.hpp"

std::vector<std::uint8_t> labels_of(const std::string& model, const std::vector<std::uint8_t>& pixels, Shape shape) {
  ov::Core core;
  auto network = core.read_model(model);
  const ov::Shape sides{1, static_cast<std::size_t>(shape.height), static_cast<std::size_t>(shape.width),
                        static_cast<std::size_t>(shape.channels)};
  network->reshape(ov::PartialShape(sides));
  auto compiled = core.compile_model(network, "CPU", ov::hint::inference_precision(ov::element::f32));
  auto request = compiled.create_infer_request();
  ov::Tensor image(ov::element::u8, sides);
  std::copy(pixels.begin(), pixels.end(), image.data<std::uint8_t>());
  request.set_tensor("image", image);
  request.infer();
  const auto* labels = request.get_tensor("labels").data<std::uint8_t>();
  return {labels, labels + shape.height * shape.width};
}

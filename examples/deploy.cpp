// A network of the zoo in C++: an exported file in OpenVINO, without Python.
//
//     zoo export danet20-t4.fmnist --to onnx
//     g++ -std=c++17 deploy.cpp -I $OPENVINO/include -L $OPENVINO/libs -l:libopenvino.so.2641 \
//         -Wl,-rpath,$OPENVINO/libs -o deploy
//     ./deploy danet20-t4.fmnist.onnx images.raw
//
// OPENVINO is the folder of the Python package, which has the headers too, or an installation of the
// runtime. images.raw holds normalised images as float32, one after the other: [B, C, H, W].
#include <algorithm>
#include <fstream>
#include <iostream>
#include <openvino/openvino.hpp>
#include <vector>

int main(int argc, char** argv) {
    if (argc != 3) {
        std::cerr << "usage: deploy MODEL.onnx IMAGES.raw\n";
        return 2;
    }
    ov::Core core;
    auto model = core.read_model(argv[1]);
    const auto shape = model->input("images").get_partial_shape();  // [?, C, H, W]
    std::size_t pixels = 1;
    ov::Shape images{0};
    for (std::size_t axis = 1; axis < shape.size(); ++axis) {
        images.push_back(shape[axis].get_length());
        pixels *= images.back();
    }

    std::ifstream file(argv[2], std::ios::binary | std::ios::ate);
    if (!file) {
        std::cerr << argv[2] << " cannot be read\n";
        return 2;
    }
    const auto bytes = static_cast<std::size_t>(file.tellg());
    images[0] = bytes / (pixels * sizeof(float));
    if (images[0] == 0 || bytes % (pixels * sizeof(float))) {
        std::cerr << argv[2] << " holds " << bytes << " bytes: expected images of " << pixels
                  << " float32\n";
        return 2;
    }
    ov::Tensor input(ov::element::f32, images);
    file.seekg(0).read(reinterpret_cast<char*>(input.data()), bytes);

    // Spikes are 0 or 1 only in float32: a lower precision is another network.
    auto compiled =
        core.compile_model(model, "CPU", ov::hint::inference_precision(ov::element::f32));
    auto request = compiled.create_infer_request();
    request.set_tensor("images", input);
    request.infer();

    const auto logits = request.get_tensor("logits");
    const auto classes = logits.get_shape()[1];
    const auto* row = logits.data<float>();
    for (std::size_t i = 0; i < images[0]; ++i, row += classes)
        std::cout << std::max_element(row, row + classes) - row << "\n";
}
